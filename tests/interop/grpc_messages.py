"""The clients' own descriptions of messages beside ours: ``python -m tests.interop.grpc_messages``."""

from collections.abc import Iterator
from typing import Any

from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2,
    prediction_service_pb2,
)
from tritonclient.grpc import service_pb2

from service.protocols.grpc import open_inference_pb2, tensorflow_serving_pb2
from tests.interop.checks import check, run

_UNREAD = {"RegressionRequest", "MultiInferenceRequest"}


@check
def triton(_: None) -> None:
    """Each field that we read or write is one of Triton's, with its number and type."""
    compare(open_inference_pb2, methods(service_pb2.DESCRIPTOR, "GRPCInferenceService"))


@check
def tensorflow(_: None) -> None:
    """Each field that we read or write is one of TensorFlow Serving's, with its number and type."""
    theirs = {
        **methods(prediction_service_pb2.DESCRIPTOR, "PredictionService"),
        **methods(model_service_pb2.DESCRIPTOR, "ModelService"),
        "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap.DESCRIPTOR,
    }
    compare(tensorflow_serving_pb2, {name: found for name, found in theirs.items() if name not in _UNREAD})


def methods(file: Any, service: str) -> dict[str, Any]:
    """Return what the methods of ``service`` take and give, by their names."""
    both = [(method.input_type, method.output_type) for method in file.services_by_name[service].methods]
    return {kind.name: kind for pair in both for kind in pair}


def compare(ours: Any, theirs: dict[str, Any]) -> None:
    """Fail where a field of ours, of a message that both have, is not one of theirs."""
    compared = {name: theirs[name] for name in ours.DESCRIPTOR.message_types_by_name if name in theirs}
    assert len(compared) >= 9, compared
    for name, kind in compared.items():
        for own, other in pairs(ours.DESCRIPTOR.message_types_by_name[name], kind):
            for field in own.fields:
                same = other.fields_by_name.get(field.name)
                assert same is not None, f"{own.full_name} has a field {field.name} of its own"
                assert shape(field) == shape(same), f"{own.full_name}.{field.name}"
                if field.enum_type is not None:
                    known = {value.name: value.number for value in same.enum_type.values}
                    assert {value.name: value.number for value in field.enum_type.values}.items() <= known.items()


def pairs(own: Any, other: Any, seen: frozenset[str] = frozenset()) -> Iterator[tuple[Any, Any]]:
    """Yield two messages, and those of their fields, beside each other."""
    yield own, other
    for field in own.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from pairs(field.message_type, other.fields_by_name[field.name].message_type, seen | {own.full_name})


def shape(field: Any) -> tuple[int, int, bool, str | None]:
    """Return what a field is on the wire."""
    choice = field.containing_oneof
    return field.number, field.type, field.is_repeated, choice and choice.name


if __name__ == "__main__":
    run(None)
