"""Texts in capitals: STRINGS in, UPPER out."""

import numpy as np


def handle(data, context):
    return None if data is None else [{"UPPER": np.array([text.decode().upper() for text in row["STRINGS"]], dtype=object)} for row in data]
