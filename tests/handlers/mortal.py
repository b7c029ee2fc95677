"""Ends its worker when x is not 0."""

import os


def handle(data, context):
    for row in data or []:
        if row["x"].any():
            os._exit(1)
    return data
