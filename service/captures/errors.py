"""What can go wrong with kept pictures; ``service.web.errors`` says how each is told."""

from service.inference.errors import ServiceError


class Forbidden(ServiceError):
    """Nobody may do this here, or not from there."""


class NothingKept(ServiceError):
    """The service keeps no pictures."""


class UnknownCapture(ServiceError):
    """There is no such picture, or there is none any more."""


class TakenByAnother(ServiceError):
    """Another person has the picture, or has dealt with it."""


class FolderFails(ServiceError):
    """The folder of kept pictures cannot be read or written at the moment."""
