"""Waits at the FIFO that a request names, if any, and answers with its process and the ids of the requests it has seen."""

import os

seen = []


def handle(data, context):
    for index, row in enumerate(data or []):
        seen.append(context.get_request_id(index))
        if row["data"]:
            with open(row["data"] if isinstance(row["data"], str) else bytes(row["data"]), "rb") as gate:
                gate.read()
    return [{"pid": os.getpid(), "seen": list(seen)} for _ in data or []]
