"""Runs handlers on batches without a worker process, for the tests of the runner."""

from google.rpc import error_details_pb2, status_pb2

from servegrpc.engine.channel import LEFT, Item
from servegrpc.errors import Code
from servegrpc.v1 import inference_pb2
from servegrpc.values import decode_value, encode_value
from servegrpc.wire.codecs import CODECS
from servegrpc.worker.answers import Answers
from servegrpc.worker.context import Context
from servegrpc.worker.runner import Runner


def item(data, request_id, headers=()):
    message = inference_pb2.PredictRequest(inputs={"data": encode_value(data)} if data is not None else {})
    return Item(0, request_id, headers, 7, memoryview(message.SerializeToString()))


def run(handle, *inputs, expose_errors=False):
    """Run a handler on requests with these inputs, named r0, r1, …; None is a request without inputs."""
    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, expose_errors))
    return runner.run([item(data, f"r{index}", (("key", f"value-{index}"),)) for index, data in enumerate(inputs)], Outlet())


class Outlet:
    """Callers that never leave."""

    def flags(self, index):
        return 0


def echo(rows, context):
    return [row["data"] for row in rows]


def result(reply):
    assert reply.code == Code.OK, reply.message
    return decode_value(inference_pb2.PredictResponse.FromString(reply.body).output)


def reason(reply):
    """Return the reason in a failed reply's details."""
    return details(reply)[0].reason


def details(reply):
    status = status_pb2.Status.FromString(reply.body)
    assert (status.code, status.message) == (reply.code, reply.message)
    kinds = {kind.DESCRIPTOR.full_name: kind for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)}
    unpacked = []
    for packed in status.details:
        detail = kinds[packed.type_url.rpartition("/")[2]]()
        packed.Unpack(detail)
        unpacked.append(detail)
    return unpacked


def run_items(handle, items, outlet, *, isolate=False):
    context = Context(model_name="m", model_dir="/", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
    runner = Runner(handle, context, Answers(CODECS, "m", "2.0", 5, expose_errors=False), isolate=isolate)
    return runner.run(items, outlet)


class Recorded(Outlet):
    """Keeps what is sent; the callers of `left` have left."""

    def __init__(self, *left):
        self.left = left
        self.sent = []

    def send(self, replies):
        self.sent.append([reply.index for reply in replies])
        self.replies = [*getattr(self, "replies", []), *replies]

    def flags(self, index):
        return LEFT if index in self.left else 0


def streamed(data, request_id):
    """Return a request whose caller takes a stream."""
    one = item(data, request_id)
    one.streamed = True
    return one
