"""Server reflection, v1 and v1alpha, so that grpcurl and its like need no proto files."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def add_reflection(server: grpc.Server, services: Sequence[str]) -> None:
    """Show these services, and reflection itself, on a server. grpcio-reflection serves v1alpha only; v1 has the same messages."""
    _describe_v1()
    servicer = reflection.ReflectionServicer(service_names=(*services, *SERVICES))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method}) for service in SERVICES]
    )


def _describe_v1() -> None:
    """Make v1 known to the descriptor pool that reflection answers from, as v1alpha under its own name."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(SERVICES[0])
    except KeyError:
        alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
        text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
        pool.AddSerializedFile(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()).SerializeToString())
