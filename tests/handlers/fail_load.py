"""Raises while it loads, on line 6."""


class Handler:
    def initialize(self, context):
        raise RuntimeError("the weights are damaged")

    def handle(self, data, context):
        return data
