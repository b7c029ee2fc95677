"""The codec of each dialect."""

from __future__ import annotations

from collections.abc import Mapping

from servegrpc.wire import native, torchserve
from servegrpc.wire.dialect import Codec, Dialect
from servegrpc.wire.open_inference import OpenInferenceCodec, codec_of

CODECS: Mapping[int, Codec] = {Dialect.NATIVE: native, Dialect.TORCHSERVE: torchserve, Dialect.OPEN_INFERENCE: OpenInferenceCodec()}


def worker_codecs(model_config: Mapping[str, object], batch_size: int) -> Mapping[int, Codec]:
    """Return the codecs for one model, whose configuration may say more about its messages."""
    return {**CODECS, Dialect.OPEN_INFERENCE: codec_of(model_config, batch_size)}
