"""The process that workers are forked from: it has torch imported, so that a worker is ready at once and shares those pages.

    server ── {"worker_id"} + descriptors ──► fork server ── fork ──► worker (worker.main)
           ◄── {"worker_id", "pid"} + pidfd ──
           ◄── {"worker_id", "status"} ──────  when the worker has ended

It must never touch CUDA, run a torch operation or start a thread: a fork would inherit the ruins. When the server goes, so do it and
all workers. What a handler has started becomes the fork server's child when its worker ends, and is killed. Started by
`engine.forkserver`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
FORK_FAILED = 6  # beside the exit codes of worker.main
MAX_REQUEST_BYTES = 64 * 1024


def preload() -> None:
    """Import what every worker needs, and keep the collector off these objects so that their pages stay shared."""
    for name in ("PIL.Image", "torch.utils.data", "servegrpc.handlers.image_classifier", "servegrpc.worker.main"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def serve(server: socket.socket) -> None:
    """Fork workers until the server hangs up; then end them all."""
    workers: dict[int, int] = {}  # pid: worker id
    wake, wake_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
                _reap(server, workers)
            if server.fileno() in ready and not _fork(server, workers):
                break
    for pid in workers:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    while _kill_children():
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _fork(server: socket.socket, workers: dict[int, int]) -> bool:
    """Take one request and fork; returns False when the server is gone."""
    request, descriptors, _, _ = socket.recv_fds(server, MAX_REQUEST_BYTES, 16)
    if not request:
        return False
    worker_id = json.loads(request)["worker_id"]
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:  # no more processes, or no memory: that worker fails, the others live on
        sys.stderr.write(f"fork failed: {error}\n")
        server.send(json.dumps({"worker_id": worker_id, "status": FORK_FAILED}).encode())
        for descriptor in descriptors:
            os.close(descriptor)
        return True
    if pid == 0:
        _become_worker(server, descriptors, parent)
    with suppress(OSError):  # the worker does it too: whoever comes first
        os.setpgid(pid, pid)
    workers[pid] = worker_id
    pidfd = os.pidfd_open(pid)
    with suppress(OSError):
        socket.send_fds(server, [json.dumps({"worker_id": worker_id, "pid": pid}).encode()], [pidfd])
    for descriptor in (*descriptors, pidfd):
        os.close(descriptor)
    return True


def _become_worker(server: socket.socket, descriptors: list[int], parent: int) -> None:
    code = 1
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what its handler starts is its own, until it ends
        if os.getppid() != parent:
            os._exit(1)
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.close()
        from servegrpc.worker.main import run

        code = run(descriptors)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - nothing may get back into the fork server's loop
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reap(server: socket.socket, workers: dict[int, int]) -> None:
    """Tell of the workers that have ended, once what their handlers left behind is killed."""
    ended: list[tuple[int, int]] = []
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    for pid, _ in ended:
        if pid in workers:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
    _kill_children(but=workers)
    for pid, status in ended:
        if pid in workers:
            with suppress(OSError):
                server.send(json.dumps({"worker_id": workers.pop(pid), "status": os.waitstatus_to_exitcode(status)}).encode())


def _kill_children(but: Container[int] = ()) -> bool:
    """Kill the children that are no workers; their own come next, when they have ended. Returns whether there are any."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # a kernel without that file: what is in the workers' process groups is killed all the same
        return False
    others = [int(child) for child in children if int(child) not in but]
    for pid in others:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(others)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def main() -> None:
    """Run the fork server on the socket that was inherited as the descriptor named on the command line."""
    server = socket.socket(fileno=int(sys.argv[1]))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    preload()
    serve(server)


if __name__ == "__main__":
    main()
