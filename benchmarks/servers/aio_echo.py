"""A bare `grpc.aio` server that echoes the first 100 bytes: the limit of servers built on it. `aio_echo.py PORT`."""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio


async def echo(request: bytes, _context: object) -> bytes:
    """Return the start of the request."""
    return request[:100]


async def main() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
