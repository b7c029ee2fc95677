"""Returns the headers of each request, as JSON."""


def handle(data, context):
    return None if data is None else [{"headers": dict(context.get_all_request_header(index))} for index in range(len(data))]
