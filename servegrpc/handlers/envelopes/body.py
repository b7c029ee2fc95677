"""The envelope `body`: the handler gets each request's input itself, without a name."""

from __future__ import annotations

from servegrpc.handlers.envelopes.base import BaseEnvelope
from servegrpc.handlers.rows import Row, row_input


class BodyEnvelope(BaseEnvelope):
    """Rows are the inputs "data" or "body"; results are passed on."""

    def parse_input(self, data: list[Row]) -> list[object]:
        """Return each request's input."""
        return [row_input(row, index)[1] for index, row in enumerate(data)]

    def format_output(self, data: list[object]) -> list[object]:
        """Return the results as they are."""
        return data
