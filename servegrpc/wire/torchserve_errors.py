"""TorchServe's words for what goes wrong: a status code, a text, and on the text's second line a class of its own.

Sources: TorchServe 0.12 `InferenceImpl.java`, `Job.java`, `GRPCUtils.java`, and what it was seen to answer.
"""

from __future__ import annotations

from typing import NamedTuple

from servegrpc.errors import (
    Code,
    Draining,
    HandlerError,
    InvalidHandlerResult,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    NoWorkers,
    QueueFull,
    ResponseTimeout,
    SequenceLimit,
    SequenceUnknown,
    ServeError,
    VersionNotFound,
    WorkerLost,
)
from servegrpc.wire.status import short

BAD_REQUEST = "org.pytorch.serve.http.BadRequestException"
INTERNAL_ERROR = "org.pytorch.serve.http.InternalServerException"
MODEL_NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
VERSION_NOT_FOUND = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"

RESULT_TEXTS = {"NO_LIST": "Invalid model predict output", "WRONG_COUNT": "number of batch response mismatched"}
LONGEST_LINE = 600  # so that the second line, on which clients match, is never cut off

GRPC_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    416: Code.OUT_OF_RANGE,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class Ending(NamedTuple):
    """How a call ends: its status code and message."""

    code: Code
    text: str


class EmptyName(InvalidInput):
    """A request of TorchServe's API names no model."""


def end(code: Code, line: str, class_name: str) -> Ending:
    """Return the end of a call in TorchServe's form, a text and a class below it."""
    return Ending(code, f"{short(line, LONGEST_LINE)}\n{class_name}")


def grpc_code(http: int) -> Code:
    """Return the status code that TorchServe makes of an HTTP code. Those of success are UNKNOWN too: a failure is never OK here."""
    if http in GRPC_CODES:
        return GRPC_CODES[http]
    if 400 <= http < 500:
        return Code.FAILED_PRECONDITION
    return Code.INTERNAL if 500 <= http < 600 else Code.UNKNOWN


def ending(error: ServeError) -> Ending:
    """Return how TorchServe ends an inference call that failed so."""
    about = error.metadata
    code, class_name = Code.INTERNAL, INTERNAL_ERROR
    match error:
        case EmptyName():
            line, class_name = "Parameter model_name is required.", "BadRequestException.()"
        case InvalidInput():
            code, line, class_name = error.code, error.message, BAD_REQUEST
        case ModelNotFound():
            line, class_name = model_not_found(error), MODEL_NOT_FOUND
        case VersionNotFound():
            line, class_name = version_not_found(error), VERSION_NOT_FOUND
        case NoWorkers() | QueueFull() | ModelLoadFailed() | SequenceLimit() | SequenceUnknown():
            line, class_name = _no_worker(about.get("model_name", ""), about.get("asked_version")), "InternalServerException.()"
        case InvalidHandlerResult():
            code, line = Code.UNAVAILABLE, RESULT_TEXTS.get(about.get("problem", ""), "Unsupported model output data type.")
        case HandlerError():
            code, line = _handler_error(error)
        case WorkerLost() | ResponseTimeout():
            code, line = Code.RESOURCE_EXHAUSTED if "(SIGKILL)" in about.get("cause", "") else Code.INTERNAL, "Worker died."
        case Draining():
            code, line = Code.UNAVAILABLE, error.message
        case _:
            code, line = error.code, error.message
    return end(code, line, class_name)


def model_not_found(error: ServeError) -> str:
    """Return the text for a model that is not there."""
    return f"Model not found: {error.metadata.get('model_name', '')}"


def version_not_found(error: ServeError) -> str:
    """Return the text for a version that is not there."""
    return f"Model version: {error.metadata.get('model_version')} does not exist for model: {error.metadata.get('model_name')}"


def _no_worker(name: str, version: str | None) -> str:
    model = f'Model "{name}" Version {version}"' if version else f'Model "{name}"'  # the odd quotation mark is TorchServe's
    return (
        f"{model} has no worker to serve inference request. Please use scale workers API to add workers. "
        "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )


def _handler_error(error: HandlerError) -> tuple[Code, str]:
    about = error.metadata
    if about.get("problem") == "OUT_OF_RESOURCES":
        return Code.INTERNAL, "Out of resources"
    if "prediction_code" in about:
        return grpc_code(int(about["prediction_code"])), about.get("prediction_message", "")
    return Code.UNAVAILABLE, "Prediction failed"
