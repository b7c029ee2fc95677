"""Adds up the numbers of each sequence, in the worker's memory."""

import json

from deeds import NEVER, Journal


class Totals(Journal):
    """Answers with the total so far, and how many numbers are in it."""

    def initialize(self, context):
        super().initialize(context)
        self._totals = {}

    def handle(self, data, context):
        asks = self.taken(data, context)
        NEVER.wait(max(ask["milliseconds"] for ask in asks) / 1000)
        return [self._add(ask, context.get_sequence_id(index)) for index, ask in enumerate(asks)]

    def _add(self, ask, sequence):
        total, count = self._totals.get(sequence, (0, 0))
        self._totals[sequence] = total, count = total + ask["number"], count + 1
        return json.dumps({"id": ask["id"], "total": total, "count": count}).encode() + b"\n"

    def end_sequence(self, sequence_id):
        self._totals.pop(sequence_id, None)
