"""Prints what it gets on both streams, and logs it."""

import logging
import sys

log = logging.getLogger(__name__)


def handle(data, context):
    for row in data or []:
        print("out", row["data"])
        print("err", row["data"], file=sys.stderr)
        log.info("log %s", row["data"])
        log.debug("secret %s", row["data"])
    return [None] * len(data or [])
