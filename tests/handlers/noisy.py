"""Prints what it gets on both streams."""

import sys


def handle(data, context):
    for row in data or []:
        print("out", row["data"])
        print("err", row["data"], file=sys.stderr)
    return [None] * len(data or [])
