"""`AsyncClient`, for asyncio: the methods of `Client` in `sync.py`, awaited. The calls themselves are in `calls.py`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Self, TypeAlias

import grpc

from servegrpc.client import calls
from servegrpc.client.calls import Call, Metadata, Reply, Result, Seconds
from servegrpc.client.connection import INFERENCE_ADDRESS, MANAGEMENT_ADDRESS, MAX_MESSAGE_BYTES, Tls, channel_options, credentials
from servegrpc.client.errors import CallError, call_error, not_ready
from servegrpc.client.notebook import on_its_way
from servegrpc.client.results import HealthStatus, Model, ModelEvent, Models, Prediction
from servegrpc.client.session import AsyncSession, Requests
from servegrpc.v1 import inference_pb2
from servegrpc.values import Tensors

Method: TypeAlias = "grpc.aio.StreamStreamMultiCallable[inference_pb2.PredictSessionRequest, inference_pb2.PredictSessionResponse]"


class _Port:
    """One port of the server: runs calls with the client's defaults and turns grpc's errors into ours."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float | None, metadata: Metadata, *, progress: bool) -> None:
        self.channel = channel
        self.timeout = timeout
        self.metadata = tuple(metadata)
        self.progress = progress

    def deadline(self, timeout: float | None) -> float | None:
        return self.timeout if timeout is None else timeout

    async def run(self, call: Call[Reply, Result], timeout: float | None, metadata: Metadata = ()) -> Result:
        method = self.channel.unary_unary(call.method, type(call.request).SerializeToString, call.reply_type.FromString)
        try:
            with on_its_way(call.request, shown=self.progress):
                reply = await method(call.request, timeout=self.deadline(timeout), metadata=(*self.metadata, *metadata))
        except grpc.aio.AioRpcError as error:
            raise call_error(error) from None
        return call.read(reply)

    def stream(
        self, call: Call[Reply, Result], timeout: float | None, metadata: Metadata = (), *, wait_for_ready: bool = False
    ) -> AsyncGenerator[Result, None]:
        method = self.channel.unary_stream(call.method, type(call.request).SerializeToString, call.reply_type.FromString)
        replies = method(call.request, timeout=timeout, metadata=(*self.metadata, *metadata), wait_for_ready=wait_for_ready)

        async def read() -> AsyncGenerator[Result, None]:
            try:
                with ExitStack() as line:
                    line.enter_context(on_its_way(call.request, shown=self.progress))
                    async for reply in replies:
                        line.close()
                        yield call.read(reply)
            except grpc.aio.AioRpcError as error:
                raise call_error(error) from None
            finally:
                replies.cancel()  # for the reader who leaves early

        return read()


class AsyncClient:
    """A connection to one server, for the event loop that runs when it is made; see `Client` for what it takes and does.

    A call whose task is cancelled is cancelled on the server. Leave a stream early by `aclose()`, or `contextlib.aclosing`.
    """

    def __init__(
        self,
        address: str = INFERENCE_ADDRESS,
        *,
        management_address: str | None = None,
        timeout: float | None = 60,
        metadata: Metadata = (),
        tls: bool | Tls = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        attempts: int = 4,
        tensors: Tensors = "numpy",
        progress: bool = False,
    ) -> None:
        def connect(target: str) -> _Port:
            options, secret = channel_options(max_message_bytes, attempts), credentials(tls)
            channel = grpc.aio.secure_channel(target, secret, options) if secret else grpc.aio.insecure_channel(target, options)
            return _Port(channel, timeout, metadata, progress=progress)

        self._addresses = address, management_address or MANAGEMENT_ADDRESS
        self._inference, self._management = map(connect, self._addresses)
        self._tensors: Tensors = tensors

    async def predict(
        self,
        model: str,
        inputs: object,
        *,
        version: str = "",
        request_id: str = "",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Prediction:
        """See `Client.predict`."""
        return await self._inference.run(calls.predict(model, inputs, version, request_id, self._tensors), timeout, metadata)

    def stream(
        self,
        model: str,
        inputs: object,
        *,
        version: str = "",
        request_id: str = "",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> AsyncGenerator[Prediction, None]:
        """See `Client.stream`."""
        call = calls.predict_stream(model, inputs, version, request_id, self._tensors)
        return self._inference.stream(call, self._inference.deadline(timeout), metadata)

    def session(self, model: str, *, version: str = "", timeout: float | None = None, metadata: Metadata = ()) -> AsyncSession:
        """Open a session: its requests are run in order by one worker, so that a handler may keep state between them.

        `timeout` is for the whole session, None for no limit, whatever the client's.
        """
        method: Method = self._inference.channel.stream_stream(
            calls.SESSION_METHOD,
            inference_pb2.PredictSessionRequest.SerializeToString,
            inference_pb2.PredictSessionResponse.FromString,
        )
        sent_on = (*self._inference.metadata, *metadata)
        session = Requests(model, version, self._tensors, progress=self._inference.progress)
        return AsyncSession(session, lambda: method(timeout=timeout, metadata=sent_on))

    async def health(self, service: str = "", *, timeout: float | None = None) -> HealthStatus:
        """See `Client.health`."""
        return await self._inference.run(calls.health(service), timeout)

    async def wait_ready(self, model: str = "", *, version: str = "", timeout: float = 60) -> None:
        """See `Client.wait_ready`."""
        service = calls.health_service(model, version)
        status = HealthStatus.UNKNOWN
        try:
            async for status in self._inference.stream(calls.watch_health(service), timeout, wait_for_ready=True):
                if status:
                    return
        except CallError as error:
            raise not_ready(service, status.name, error) from None
        raise not_ready(service, status.name, None)

    async def register(
        self,
        archive: str,
        *,
        name: str = "",
        handler: str = "",
        workers: int | None = None,
        max_workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay: Seconds | None = None,
        response_timeout: Seconds | None = None,
        startup_timeout: Seconds | None = None,
        max_queue_size: int | None = None,
        wait: bool = True,
        timeout: float = 600,
    ) -> Model:
        """See `Client.register`."""
        call = calls.register(
            archive,
            name=name,
            handler=handler,
            workers=workers,
            max_workers=max_workers,
            batch_size=batch_size,
            max_batch_delay=max_batch_delay,
            response_timeout=response_timeout,
            startup_timeout=startup_timeout,
            max_queue_size=max_queue_size,
            wait=wait,
        )
        return await self._management.run(call, timeout)

    async def unregister(self, model: str, version: str = "", *, wait: bool = True, timeout: float = 600) -> None:
        """See `Client.unregister`."""
        await self._management.run(calls.unregister(model, version, wait), timeout)

    async def model(self, name: str, *, timeout: float | None = None) -> Model:
        """See `Client.model`."""
        return await self._management.run(calls.model(name), timeout)

    async def models(self, *, timeout: float | None = None) -> Models:
        """See `Client.models`."""
        found, token = await self._management.run(calls.models(""), timeout)
        while token:
            page, token = await self._management.run(calls.models(token), timeout)
            found += page
        return Models(found)

    async def scale(
        self, model: str, workers: int, *, max_workers: int | None = None, version: str = "", wait: bool = True, timeout: float = 600
    ) -> Model:
        """See `Client.scale`."""
        return await self._management.run(calls.scale(model, workers, max_workers, version, wait), timeout)

    async def set_default(self, model: str, version: str, *, timeout: float | None = None) -> Model:
        """See `Client.set_default`."""
        return await self._management.run(calls.set_default(model, version), timeout)

    def watch(self, model: str = "", *, timeout: float | None = None) -> AsyncGenerator[ModelEvent, None]:
        """See `Client.watch`."""
        return self._management.stream(calls.watch(model), timeout)

    async def close(self) -> None:
        """End the connection and the calls that run on it."""
        await self._inference.channel.close()
        await self._management.channel.close()

    def __repr__(self) -> str:
        address, management_address = self._addresses
        return f"AsyncClient({address!r}, management_address={management_address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()
