"""Returns each request's "data"."""


def handle(data, context):
    return None if data is None else [row["data"] for row in data]
