"""Unit test for tests/unit/test_access_log.py: the writer is busy when the last lines come and the log is closed."""

import os
import threading

from servers import until

from servegrpc.frontend.access_log import AccessLog


def test_lines_while_the_writer_is_busy(tmp_path):
    """Lines come while the file takes no more, and the log is closed → they are written too."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log = AccessLog(str(path))
    for n in range(5000):
        log.write("/a/B", "m", f"id-{n}", 0, 0.0)  # more than a pipe holds: the writer blocks
    until(lambda: not log._lines)
    log.write("/a/B", "m", "last", 0, 0.0)
    closer = threading.Thread(target=log.close)
    closer.start()
    until(log._closing.is_set)
    with os.fdopen(reader) as file:
        lines = file.read().splitlines()
    closer.join()
    assert lines[-1].endswith("request_id=last")


def test_file_that_takes_nothing():
    """The disk is full → lines are dropped, not kept in memory, and the log goes on; close does not raise."""
    log = AccessLog("/dev/full")
    for n in range(3):
        log.write("/a/B", "m", f"id-{n}", 0, 0.0)
        until(lambda: not log._lines, 5)
    log.close()
