"""The envelope `kserve`: KServe's first protocol, `{"instances": […]}` to `{"predictions": […]}` or `{"explanations": […]}`."""

from __future__ import annotations

from collections.abc import Sequence

from servegrpc.handlers.envelopes.base import JoiningEnvelope, items_of
from servegrpc.handlers.rows import Row


class KServeEnvelope(JoiningEnvelope):
    """Rows are the instances, as they are."""

    def _items(self, row: Row, index: int) -> Sequence[object]:
        return items_of(row, "instances", index)[1]

    def _reply(self, results: list[object], index: int) -> object:
        explained = self.context.get_request_header(index, "explain") == "True"
        return {"explanations" if explained else "predictions": results}
