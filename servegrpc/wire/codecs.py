"""The codec of each dialect."""

from __future__ import annotations

from collections.abc import Mapping

from servegrpc.wire import native, torchserve
from servegrpc.wire.dialect import Codec, Dialect
from servegrpc.wire.open_inference import OpenInferenceCodec

CODECS: Mapping[int, Codec] = {Dialect.NATIVE: native, Dialect.TORCHSERVE: torchserve, Dialect.OPEN_INFERENCE: OpenInferenceCodec()}
