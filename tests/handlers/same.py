"""Returns each request's inputs as its outputs, under the same names."""


def handle(data, context):
    return data
