"""Does what the first request's "data" says, and answers with its process when that says nothing."""

import ctypes
import os
import sys
import threading


def handle(data, context):
    if data is None:
        return None
    deeds = {
        "exit": lambda: os._exit(0),
        "sys.exit": lambda: sys.exit(7),
        "exit 3": lambda: os._exit(3),
        "exit 4": lambda: os._exit(4),
        "segfault": lambda: ctypes.string_at(0),
        "hang": lambda: threading.Event().wait(),
        "raise": lambda: 1 / 0,
        "too many": lambda: [1] * (len(data) + 1),
        "no list": lambda: {"digit": 7},
        "unsendable": lambda: [object()] * len(data),
    }
    deed = deeds.get(data[0]["data"], lambda: [os.getpid()] * len(data))
    return deed()
