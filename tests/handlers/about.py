"""Answers each request with what a handler knows of it."""


def handle(data, context):
    return [
        {
            "request_id": context.get_request_id(index),
            "headers": context.get_all_request_header(index),
            "version": context.manifest["model"]["modelVersion"],
            "inputs": {name: type(value).__name__ for name, value in row.items()},
        }
        for index, row in enumerate(data or [])
    ]
