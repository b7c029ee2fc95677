"""TorchServe's words for what goes wrong: a status code, a text, and on the text's second line a class of its own.

Sources: TorchServe 0.12 `InferenceImpl.java`, `Job.java`, `GRPCUtils.java`, and what it was seen to answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from servegrpc.errors import (
    ArchiveNotFound,
    Code,
    DefaultVersion,
    Draining,
    HandlerError,
    InvalidArchive,
    InvalidHandlerResult,
    InvalidInput,
    ModelLoadFailed,
    ModelNotFound,
    NoWorkers,
    QueueFull,
    RequirementsFailed,
    ResponseTimeout,
    SequenceLimit,
    SequenceLost,
    SequenceUnknown,
    ServeError,
    TokenRefused,
    VersionExists,
    VersionNotFound,
    WorkerLost,
)
from servegrpc.wire.status import short

BAD_REQUEST = "org.pytorch.serve.http.BadRequestException"
INTERNAL_ERROR = "org.pytorch.serve.http.InternalServerException"
MODEL_NOT_FOUND = "org.pytorch.serve.archive.model.ModelNotFoundException"
MODEL_EXCEPTION = "org.pytorch.serve.archive.model.ModelException"
INVALID_MODEL = "org.pytorch.serve.archive.model.InvalidModelException"
INVALID_VERSION = "org.pytorch.serve.http.InvalidModelVersionException"
DOWNLOAD = "org.pytorch.serve.archive.DownloadArchiveException"
CONFLICT = "org.pytorch.serve.http.ConflictStatusException"
VERSION_NOT_FOUND = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"

MODEL_NOT_FOUND_TEXT = "Model not found: {model_name}"
VERSION_NOT_FOUND_TEXT = "Model version: {model_version} does not exist for model: {model_name}"
RESULT_TEXTS = {"NO_LIST": "Invalid model predict output", "WRONG_COUNT": "number of batch response mismatched"}
LONGEST_LINE = 600  # so that the second line, on which clients match, is never cut off


class Ending(NamedTuple):
    """How a call ends: its status code and message."""

    code: Code
    text: str


class EmptyName(InvalidInput):
    """A request of TorchServe's API names no model."""


class EmptySequenceId(InvalidInput):
    """A request for a model that keeps sequences does not say which one it is of."""


class NamelessArchive(InvalidInput):
    """Neither the caller nor the archive names the model."""


class UrlRefused(InvalidArchive):
    """The server does not download from an archive's address."""


class NoModelStore(ArchiveNotFound):
    """An archive is given by its name in the model store, and the server has none."""


class DownloadFailed(ArchiveNotFound):
    """Nothing could be downloaded from an archive's address."""


class RelativeUrl(InvalidInput):
    """An archive's address has ".." in it."""


class UnknownDefault(VersionNotFound):
    """The version that shall be the default is not there."""


def end(code: Code, line: str, class_name: str) -> Ending:
    """Return the end of a call in TorchServe's form, a text and a class below it."""
    return Ending(code, f"{short(line, LONGEST_LINE)}\n{class_name}")


def ending(error: ServeError) -> Ending:
    """Return how TorchServe ends an inference call that failed so."""
    about = defaultdict(str, error.metadata)
    code, class_name = Code.INTERNAL, INTERNAL_ERROR
    match error:
        case TokenRefused():
            return Ending(error.code, error.message)  # the only one without a class
        case EmptyName():
            line, class_name = "Parameter model_name is required.", "BadRequestException.()"
        case EmptySequenceId():
            line, class_name = "Parameter sequenceId is required.", "BadRequestException.()"
        case InvalidInput():
            code, line, class_name = error.code, error.message, BAD_REQUEST
        case ModelNotFound():
            line, class_name = MODEL_NOT_FOUND_TEXT.format_map(about), MODEL_NOT_FOUND
        case VersionNotFound():
            line, class_name = VERSION_NOT_FOUND_TEXT.format_map(about), VERSION_NOT_FOUND
        case NoWorkers() | QueueFull() | ModelLoadFailed() | SequenceLimit() | SequenceUnknown():
            line, class_name = _no_worker(about["model_name"], about["asked_version"]), "InternalServerException.()"
        case InvalidHandlerResult():
            code, line = Code.UNAVAILABLE, RESULT_TEXTS.get(about["problem"], "Unsupported model output data type.")
        case HandlerError():
            code, line = _handler_error(error)
        case WorkerLost() | ResponseTimeout() | SequenceLost():
            code, line = Code.RESOURCE_EXHAUSTED if "(SIGKILL)" in about["cause"] else Code.INTERNAL, "Worker died."
        case Draining():
            code, line = Code.UNAVAILABLE, error.message
        case _:
            code, line = error.code, error.message
    return end(code, line, class_name)


def description_ending(error: ServeError) -> Ending:
    """Return how TorchServe ends a DescribeModel that asks the handler too."""
    if isinstance(error, NoWorkers):
        return end(Code.INTERNAL, "InternalServerException.()", INTERNAL_ERROR)
    return ending(error)


class Words(NamedTuple):
    """How a management call ends: code, text with names of the error's metadata, class. None, or no text: the error's own."""

    code: Code | None
    text: str
    class_name: str


MANAGEMENT: Mapping[type[ServeError], Words] = {  # TorchServe's texts are empty where the code is UNKNOWN
    ServeError: Words(None, "", INTERNAL_ERROR),
    EmptyName: Words(Code.UNKNOWN, "", BAD_REQUEST),
    NamelessArchive: Words(None, "Model name is not defined.", INVALID_MODEL),
    RelativeUrl: Words(Code.NOT_FOUND, "", MODEL_NOT_FOUND),
    InvalidInput: Words(None, "", BAD_REQUEST),
    ModelNotFound: Words(None, MODEL_NOT_FOUND_TEXT, MODEL_NOT_FOUND),
    VersionNotFound: Words(None, VERSION_NOT_FOUND_TEXT, VERSION_NOT_FOUND),
    UnknownDefault: Words(None, "Model version {model_version} does not exist for model {model_name}", VERSION_NOT_FOUND),
    VersionExists: Words(Code.UNKNOWN, "Model version {model_version} is already registered for model {model_name}", CONFLICT),
    DefaultVersion: Words(Code.UNKNOWN, "Cannot remove default version for model {model_name}", INVALID_VERSION),
    ArchiveNotFound: Words(None, "Model not found at: {archive}", MODEL_NOT_FOUND),
    NoModelStore: Words(None, "Model store has not been configured.", MODEL_NOT_FOUND),
    DownloadFailed: Words(Code.INVALID_ARGUMENT, "Failed to download archive from: {archive}", DOWNLOAD),
    UrlRefused: Words(Code.NOT_FOUND, "Given URL {archive} does not match any allowed URL(s)", MODEL_NOT_FOUND),
    InvalidArchive: Words(None, "", INVALID_MODEL),
    RequirementsFailed: Words(Code.INVALID_ARGUMENT, "Custom pip package installation failed for model {model_name}", MODEL_EXCEPTION),
    ModelLoadFailed: Words(Code.INTERNAL, "Failed to start workers for model {model_name} version: {model_version}", INTERNAL_ERROR),
}


def management_ending(error: ServeError) -> Ending:
    """Return how TorchServe ends a management call that failed so."""
    words = next(MANAGEMENT[kind] for kind in type(error).__mro__ if kind in MANAGEMENT)
    text = words.text.format_map(defaultdict(str, error.metadata)) or error.message
    return end(words.code or error.code, text, words.class_name)


def _no_worker(name: str, version: str) -> str:
    model = f'Model "{name}" Version {version}"' if version else f'Model "{name}"'  # the odd quotation mark is TorchServe's
    return (
        f"{model} has no worker to serve inference request. Please use scale workers API to add workers. "
        "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )


def _handler_error(error: HandlerError) -> tuple[Code, str]:
    about = error.metadata
    if about.get("problem") == "OUT_OF_RESOURCES":
        return Code.INTERNAL, "Out of resources"
    if "prediction_code" in about or "http_status" in about:  # the handler's own word: a PredictionException, or a response's status
        return error.code, error.message
    return Code.UNAVAILABLE, "Prediction failed"
