from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_INPUT: _ClassVar[ErrorReason]
    ERROR_REASON_HANDLER_ERROR: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_HANDLER_RESULT: _ClassVar[ErrorReason]
    ERROR_REASON_WORKER_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_RESPONSE_TIMEOUT: _ClassVar[ErrorReason]
    ERROR_REASON_QUEUE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_NO_WORKERS: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_LOAD_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_ARCHIVE_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_ARCHIVE: _ClassVar[ErrorReason]
    ERROR_REASON_DEFAULT_VERSION: _ClassVar[ErrorReason]
    ERROR_REASON_SERVER_ERROR: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXPIRED: _ClassVar[ErrorReason]
    ERROR_REASON_REQUEST_CANCELLED: _ClassVar[ErrorReason]
    ERROR_REASON_SEQUENCE_UNKNOWN: _ClassVar[ErrorReason]
    ERROR_REASON_SEQUENCE_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_SEQUENCE_LIMIT: _ClassVar[ErrorReason]
    ERROR_REASON_SLOW_READER: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_MODEL_NOT_FOUND: ErrorReason
ERROR_REASON_VERSION_NOT_FOUND: ErrorReason
ERROR_REASON_INVALID_INPUT: ErrorReason
ERROR_REASON_HANDLER_ERROR: ErrorReason
ERROR_REASON_INVALID_HANDLER_RESULT: ErrorReason
ERROR_REASON_WORKER_LOST: ErrorReason
ERROR_REASON_RESPONSE_TIMEOUT: ErrorReason
ERROR_REASON_QUEUE_FULL: ErrorReason
ERROR_REASON_NO_WORKERS: ErrorReason
ERROR_REASON_MODEL_LOAD_FAILED: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_VERSION_EXISTS: ErrorReason
ERROR_REASON_ARCHIVE_NOT_FOUND: ErrorReason
ERROR_REASON_INVALID_ARCHIVE: ErrorReason
ERROR_REASON_DEFAULT_VERSION: ErrorReason
ERROR_REASON_SERVER_ERROR: ErrorReason
ERROR_REASON_DEADLINE_EXPIRED: ErrorReason
ERROR_REASON_REQUEST_CANCELLED: ErrorReason
ERROR_REASON_SEQUENCE_UNKNOWN: ErrorReason
ERROR_REASON_SEQUENCE_LOST: ErrorReason
ERROR_REASON_SEQUENCE_LIMIT: ErrorReason
ERROR_REASON_SLOW_READER: ErrorReason
