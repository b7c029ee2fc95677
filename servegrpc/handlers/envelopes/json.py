"""The envelope `json`: TensorFlow Serving's row format, `{"instances": […]}` to `{"predictions": […]}`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from servegrpc.handlers.envelopes.base import JoiningEnvelope, decoded, items_of
from servegrpc.handlers.rows import Row


class JSONEnvelope(JoiningEnvelope):
    """Rows are the instances; `{"b64": text}` in them is bytes. Replies are JSON text."""

    def _items(self, row: Row, index: int) -> Sequence[object]:
        return [decoded(item, index) for item in items_of(row, "instances", index)[1]]

    def _reply(self, results: list[object], index: int) -> object:  # noqa: ARG002 - each request's reply is alike
        return json.dumps({"predictions": results})
