"""What can go wrong with a request: the words are for people; ``service.web.errors`` says how each is told."""

OVERLOADED = "More requests come than can be answered; try again in a moment."  # the message of a QueueFull


class ServiceError(Exception):
    """A request cannot be answered; the message says why and what to change."""


class InvalidRequest(ServiceError):
    """The request is not what the route takes."""


class InvalidImage(ServiceError):
    """The picture is damaged or cut short."""


class ImageTooLarge(ServiceError):
    """The picture has more pixels than are allowed."""


class BodyTooLarge(ServiceError):
    """The request's body has more bytes than are allowed."""


class TooManyItems(ServiceError):
    """A batch has more items than are allowed."""


class UnsupportedImage(ServiceError):
    """The content is not a picture in a format that is read here."""


class UnsupportedBody(ServiceError):
    """The body's content type is not one that the route takes."""


class SlowBody(ServiceError):
    """The client stopped sending before the body was complete."""


class UnknownModel(ServiceError):
    """The request names a model or a version that is not served."""


class NotExplainable(ServiceError):
    """The network that answers cannot tell what its answers come from."""


class QueueFull(ServiceError):
    """More images wait for the engine than are allowed."""


class ModelUnavailable(ServiceError):
    """There is no model that could answer."""


class ModelLoading(ModelUnavailable):
    """The model is loaded since somebody asks for it; it answers in a moment."""


class ReadOnlyModels(ServiceError):
    """What is set of a model's versions cannot be written beside them."""


class DeadlineExceeded(ServiceError):
    """The request took longer than is allowed."""


class EngineFailed(ServiceError):
    """The engine raised an error on a batch."""
