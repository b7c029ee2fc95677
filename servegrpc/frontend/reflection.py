"""Server reflection, v1 and v1alpha, so that grpcurl and its like need no proto files.

It answers from a descriptor pool of its own, in which the compat messages have the names that the services bear on the wire. In the default
pool they would clash with the stubs of tritonclient and TorchServe, which clients of ours may import in the same process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import grpc
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from servegrpc.compat.open_inference import service_pb2
from servegrpc.compat.torchserve import inference_pb2 as torchserve_inference_pb2
from servegrpc.compat.torchserve import management_pb2 as torchserve_management_pb2
from servegrpc.errors import InvalidInput
from servegrpc.v1 import errors_pb2, inference_pb2, management_pb2

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

Renames = Sequence[tuple[str, str]]  # text by text, in the order given

FILES: Sequence[tuple[FileDescriptor, Renames]] = (
    (inference_pb2.DESCRIPTOR, ()),
    (management_pb2.DESCRIPTOR, ()),
    (errors_pb2.DESCRIPTOR, ()),
    (error_details_pb2.DESCRIPTOR, ()),  # grpcurl shows what it finds here
    (health_pb2.DESCRIPTOR, ()),
    (reflection_pb2.DESCRIPTOR, ()),
    (reflection_pb2.DESCRIPTOR, (("v1alpha", "v1"),)),  # grpcio-reflection has v1alpha only; v1 is the same by another name
    (service_pb2.DESCRIPTOR, (("servegrpc.compat.open_inference", "inference"), ("servegrpc/compat/", ""))),
    (
        service_pb2.DESCRIPTOR,
        (("servegrpc.compat.open_inference", "org.pytorch.serve.grpc.openinference"), ("servegrpc/compat/open_inference", "torchserve")),
    ),
    (torchserve_inference_pb2.DESCRIPTOR, (("servegrpc.compat.torchserve", "org.pytorch.serve.grpc"), ("servegrpc/compat/", ""))),
    (torchserve_management_pb2.DESCRIPTOR, (("servegrpc.compat.torchserve", "org.pytorch.serve.grpc"), ("servegrpc/compat/", ""))),
)


def add_reflection(server: grpc.Server, services: Iterable[str]) -> None:
    """Show these services, and reflection itself, on a server."""
    servicer = reflection.ReflectionServicer(service_names=(*services, *SERVICES), pool=_pool())
    method: grpc.RpcMethodHandler[bytes, reflection_pb2.ServerReflectionResponse] = grpc.stream_stream_rpc_method_handler(
        lambda requests, context: servicer.ServerReflectionInfo(map(_parse, requests), context),
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method}) for service in SERVICES]
    )


def _parse(raw: bytes) -> reflection_pb2.ServerReflectionRequest:
    """Parse a request; grpcio itself, given one that is none, would wait for ever for the next."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(raw)
    except DecodeError:
        raise InvalidInput("The request is no ServerReflectionRequest message.") from None


@cache
def _pool() -> DescriptorPool:
    pool, there = DescriptorPool(), set[str]()
    for file, renames in FILES:
        _add(pool, there, file, renames)
    return pool


def _add(pool: DescriptorPool, there: set[str], file: FileDescriptor, renames: Renames) -> None:
    """Add a file, and what it imports before it, each under its new name and once."""
    for imported in file.dependencies:
        _add(pool, there, imported, renames)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    text = text_format.MessageToString(proto)
    for old, new in renames:
        text = text.replace(old, new)
    renamed = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    if renamed.name not in there:
        there.add(renamed.name)
        pool.AddSerializedFile(renamed.SerializeToString())
