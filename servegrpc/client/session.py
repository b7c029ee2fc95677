"""Sessions: requests that one worker runs in the order sent. `Client.session` and `AsyncClient.session` make them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import grpc

from servegrpc.client import calls
from servegrpc.client.errors import call_error
from servegrpc.client.notebook import on_its_way
from servegrpc.client.results import Prediction, read_prediction
from servegrpc.v1 import inference_pb2
from servegrpc.values import Tensors

AsyncStart = Callable[[], "grpc.aio.StreamStreamCall[inference_pb2.PredictSessionRequest, inference_pb2.PredictSessionResponse]"]

CLOSED = "the session is closed; open another"


class Requests:
    """Makes the messages of one session: only the first names the model."""

    def __init__(self, model: str, version: str, tensors: Tensors, *, progress: bool) -> None:
        self._model, self._version = model, version
        self._named = model, version
        self._tensors = tensors
        self._progress = progress

    def make(self, inputs: object, request_id: str) -> inference_pb2.PredictSessionRequest:
        """Return the next message."""
        model, version = self._named
        request = calls.session_request(model, inputs, version, request_id)
        self._named = "", ""
        return request

    def on_its_way(self, request: inference_pb2.PredictSessionRequest) -> AbstractContextManager[object]:
        """Show that a request runs, when it is large and the client shows progress."""
        return on_its_way(request, shown=self._progress, model=self._model)

    def read(self, reply: inference_pb2.PredictSessionResponse) -> Prediction:
        """Return the Prediction of a reply."""
        return read_prediction(reply, tensors=self._tensors)  # type: ignore[arg-type]  # the messages are alike

    def __str__(self) -> str:
        return f"{self._model!r}, version={self._version!r}" if self._version else repr(self._model)


class Session:
    """A session; use it in a `with` statement. Threads may share it: their requests are run one after the other.

    The first request that fails ends the session, by CallError: SEQUENCE_LOST when the worker that held its state is gone.
    """

    def __init__(self, requests: Requests, start: Callable[..., grpc.Call]) -> None:
        self._requests = requests
        self._outgoing: SimpleQueue[inference_pb2.PredictSessionRequest | None] = SimpleQueue()
        self._replies = start(iter(self._outgoing.get, None))
        self._lock = threading.Lock()
        self._closed = False

    def predict(self, inputs: object, *, request_id: str = "") -> Prediction:
        """Run the session's model once and return its result; `inputs` as for `Client.predict`."""
        with self._lock:
            if self._closed:
                raise ValueError(CLOSED)
            request = self._requests.make(inputs, request_id)
            self._outgoing.put(request)
            try:
                with self._requests.on_its_way(request):
                    return self._requests.read(next(self._replies))  # type: ignore[call-overload]  # it is an iterator too
            except grpc.RpcError as error:
                self._closed = True
                raise call_error(error) from None

    def close(self) -> None:
        """End the session; the server then forgets its state."""
        self._outgoing.put(None)
        self._closed = True
        self._replies.cancel()

    def __repr__(self) -> str:
        return f"Session({self._requests})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncSession:
    """A session of `AsyncClient`; use it in an `async with` statement. Tasks may share it; see `Session`.

    A request that is cancelled ends it too.
    """

    def __init__(self, requests: Requests, start: AsyncStart) -> None:
        self._requests = requests
        self._call = start()
        self._lock = asyncio.Lock()
        self._closed = False

    async def predict(self, inputs: object, *, request_id: str = "") -> Prediction:
        """Run the session's model once and return its result; `inputs` as for `AsyncClient.predict`."""
        async with self._lock:
            if self._closed:
                raise ValueError(CLOSED)
            request = self._requests.make(inputs, request_id)
            try:
                with self._requests.on_its_way(request):
                    await self._call.write(request)
                    reply = await self._call.read()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self._closed = True
                raise call_error(error if isinstance(error, grpc.RpcError) else await self._ending()) from None
            return self._requests.read(reply)  # type: ignore[arg-type]  # never EOF: that comes as an error

    async def _ending(self) -> grpc.aio.AioRpcError:
        """Return how the call has ended, before this request: its deadline passed, say."""
        call = self._call
        return grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), details=await call.details()
        )

    async def close(self) -> None:
        """End the session; the server then forgets its state."""
        self._closed = True
        self._call.cancel()

    def __repr__(self) -> str:
        return f"AsyncSession({self._requests})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
