from servegrpc.compat.open_inference import infer_pb2 as _infer_pb2
from servegrpc.compat.open_inference import server_pb2 as _server_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
