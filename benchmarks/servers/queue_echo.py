"""A bare completion-queue loop that echoes the first 100 bytes: the limit of servegrpc's fast lane. `queue_echo.py PORT`.

It uses the private module that grpcio's own Python server is written on:

    request_registered_call ──► the call (its own event as tag) ──► receive message ──► answer, and ask for the next call
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc._cython import cygrpc

METHOD = "/bench.Echo/Call"
SLOTS = 64
NO_FLAGS = 0


def answer(call: cygrpc.Call, message: bytes, answered: object) -> None:
    """Send the reply and the status in one batch."""
    operations = (
        cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
        cygrpc.SendInitialMetadataOperation((), NO_FLAGS),
        cygrpc.SendMessageOperation(message[:100], NO_FLAGS),
        cygrpc.SendStatusFromServerOperation((), cygrpc.StatusCode.ok, b"", NO_FLAGS),
    )
    call.start_server_batch(operations, answered)


def main() -> None:
    """Serve until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    core = server._state.server
    queue = cygrpc.CompletionQueue()
    core.register_completion_queue(queue)
    core.register_method(METHOD)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    for _ in range(SLOTS):
        core.request_registered_call(queue, queue, METHOD, METHOD)
    while True:
        event = queue.poll()
        if event.tag is METHOD:
            core.request_registered_call(queue, queue, METHOD, METHOD)
            call = event.call
            call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), lambda received, call=call: (call, received))
        elif event.tag is not None:
            call, received = event.tag(event)
            message = received.batch_operations[0].message()
            if message is not None:
                answer(call, message, None)


if __name__ == "__main__":
    main()
