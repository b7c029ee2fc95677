"""Sum and difference of INPUT0 and INPUT1, row by row."""


def handle(data, context):
    if data is None:
        return None
    return [{"OUTPUT0": row["INPUT0"] + row["INPUT1"], "OUTPUT1": row["INPUT0"] - row["INPUT1"]} for row in data]
