"""Our messages beside those of Triton's client: the same fields under the same numbers."""

import pytest
from oip import service_pb2

from servegrpc.compat.open_inference import service_pb2 as our_service
from servegrpc.frontend.open_inference import SERVICE

OURS = our_service.DESCRIPTOR.services_by_name["GRPCInferenceService"]
THEIRS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
FOR_KSERVE = {"model_name", "is_loaded", "is_unloaded"}  # fields of replies that Triton has not


def messages():
    found, left = {}, [message for method in OURS.methods for message in (method.input_type, method.output_type)]
    while left:
        message = left.pop()
        if message.name not in found:
            found[message.name] = message
            left += [field.message_type for field in message.fields if field.message_type]
    return found


def numbers(field):
    return {value.name: value.number for value in field.enum_type.values} if field.enum_type else {}


def test_methods():
    """The service → every method that Triton's has, with the same messages, streamed or not."""

    def shape(service):
        return {(m.name, m.input_type.name, m.output_type.name, m.client_streaming, m.server_streaming) for m in service.methods}

    assert shape(OURS) == shape(THEIRS)
    assert THEIRS.full_name == SERVICE


@pytest.mark.parametrize(("name", "ours"), messages().items())
def test_fields(name, ours):
    """A message of ours → each field has the name, number, type and label of Triton's."""
    pool = service_pb2.DESCRIPTOR.pool
    theirs = pool.FindMessageTypeByName(ours.full_name.replace(ours.file.package, "inference"))
    fields = {field.name: field for field in theirs.fields}
    for field in ours.fields:
        if field.name in FOR_KSERVE and name.endswith("Response"):
            continue
        other = fields[field.name]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
        assert numbers(field).items() <= numbers(other).items()
