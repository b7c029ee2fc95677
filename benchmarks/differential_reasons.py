"""Why servegrpc answers a call otherwise than TorchServe does, and the table of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

REASONS: Mapping[str, Sequence[str]] = {
    "TorchServe's text is empty; ours says what is wrong.": (
        "RegisterModel: the same again",
        "ScaleWorker: no model name",
        "UnregisterModel: the default",
        "UnregisterModel: the default, by its version",
    ),
    "An address that is not allowed is called so, whatever its scheme; TorchServe takes one of another scheme for a file.": (
        "RegisterModel: scheme not allowed",
    ),
    "TorchServe takes a folder's only subfolder for the archive, also when that is the one with the manifest.": (
        "RegisterModel: packed as no-archive",
        "Predictions: packed as no-archive",
    ),
    "A failure is never OK: an exception with a code of success is INTERNAL.": ("Predictions: PredictionException 200",),
    "TorchServe drops the status that a handler sets on its response; here it is the status of the call.": (
        "Predictions: response status 404",
        "Predictions: response status 503",
    ),
    "TorchServe loses the worker that a stream was asked of and that sent no parts; here that is an answer of one message.": (
        "StreamPredictions: one part",
        "StreamPredictions: a handler that does not stream",
    ),
    "TorchServe answers with the first part, and the model's next call hangs; here a unary call gets the last one.": (
        "Predictions: a handler that streams",
    ),
    "TorchServe never fills `sequence_id`.": ("StreamPredictions2: a sequence",),
    "A request that fails is answered by a message with its status, and the stream goes on: TorchServe ends it, or never answers.": (
        "StreamPredictions2: unknown model",
        "StreamPredictions2: a handler that fails",
    ),
    "TorchServe serves models that keep sequences only.": ("StreamPredictions2: a model without sequences",),
    "TorchServe sends one token of a stream that is batched continuously, and then nothing.": ("StreamPredictions: continuous batching",),
    "TorchServe calls a version that the caller did not name null; here it has its number.": ("ScaleWorker: more than can be had",),
    "TorchServe has no server metadata, and no platform of a model.": (
        "with the envelope, ServerMetadata",
        "with the envelope, ModelMetadata: tensors",
        "with the envelope, ModelMetadata: with a version",
    ),
    "Open Inference has the codes and texts of Triton here, under TorchServe's name too; a model that is not there is not ready.": (
        "with the envelope, ModelReady: unknown model",
        "with the envelope, ModelReady: unknown version",
        "with the envelope, ModelReady: no name",
        "with the envelope, ModelMetadata: unknown model",
        "with the envelope, ModelMetadata: unknown version",
        "with the envelope, ModelMetadata: no name",
        "with the envelope, ModelInfer: unknown model",
        "with the envelope, ModelInfer: unknown version",
        "with the envelope, ModelInfer: no name",
        "with the envelope, ModelInfer: a handler that fails",
    ),
    "TorchServe sends BYTES with the quotation marks of JSON.": ("with the envelope, ModelInfer: BYTES",),
    "TorchServe ignores raw contents, and its handler gets a tensor without elements.": ("with the envelope, ModelInfer: raw contents",),
    "TorchServe leaves out the keys of a handler's description whose value is null.": ("DescribeModel: customized",),
    "TorchServe takes no limit for a limit of 0, and lists nothing; here it is 100.": ("ListModels: limit 0, token 0",),
}

DEFAULTS_REASON = "TorchServe's defaults are to wait 100 ms for a batch to fill, and 100 places in a queue; here nothing waits, and 1000."
DEFAULTS = {'"maxBatchDelay": 100,': '"maxBatchDelay": 0,', '"remainingCapacity": 100,': '"remainingCapacity": 1000,'}

HEAD = """# Differences from TorchServe

Written by `python -m benchmarks.differential`, which makes the same {count} calls against TorchServe 0.12.0 and against servegrpc,
with the same archives, packed by `servegrpc archive`, and the same `config.properties`: first an empty one, without tokens; then one that
says nothing of tokens and the model API, and loads models; then one with TorchServe's envelope and its Open Inference service. Codes,
details and replies are compared byte by byte, but for process ids, worker ids, times and memory in descriptions, and tensors by their
elements. {same} are the same. The others:

| call | TorchServe 0.12.0 | servegrpc | why |
|---|---|---|---|
"""
LONGEST = 160  # characters of an outcome in the table


def reason_of(label: str, theirs: str, ours: str) -> str:
    """Return why a call is answered otherwise; empty when nobody has said. The defaults are a reason where nothing else differs."""
    for default, other in DEFAULTS.items():
        theirs = theirs.replace(default, other)
    return DEFAULTS_REASON if theirs == ours else next((reason for reason, labels in REASONS.items() if label in labels), "")


def table(count: int, different: Mapping[str, tuple[str, str]], reasons: Mapping[str, str]) -> str:
    """Return the page of all differences, in the order of their reasons."""
    explained = [(reason, label) for reason in (*REASONS, DEFAULTS_REASON) for label in different if reasons[label] == reason]
    rows = [f"| {label} | {_cell(different[label][0])} | {_cell(different[label][1])} | {reason} |" for reason, label in explained]
    return HEAD.format(count=count, same=count - len(different)) + "\n".join(rows) + "\n"


def _cell(outcome: str) -> str:
    shown = " ".join(outcome.split()).replace("|", "\\|").replace("`", "'")
    return "`" + (shown if len(shown) <= LONGEST else shown[:LONGEST] + "…") + "`"
