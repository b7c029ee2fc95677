"""`Client`, for threads. `AsyncClient` in `aio.py` has the same methods; the calls themselves are in `calls.py`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import Self

import grpc

from servegrpc.client import calls
from servegrpc.client.calls import Call, Metadata, Reply, Result, Seconds
from servegrpc.client.connection import INFERENCE_ADDRESS, MANAGEMENT_ADDRESS, MAX_MESSAGE_BYTES, Tls, channel_options, credentials
from servegrpc.client.errors import CallError, call_error, not_ready
from servegrpc.client.notebook import on_its_way
from servegrpc.client.results import HealthStatus, Model, ModelEvent, Models, Prediction
from servegrpc.client.session import Requests, Session
from servegrpc.v1 import inference_pb2
from servegrpc.values import Tensors


class _Port:
    """One port of the server: runs calls with the client's defaults and turns grpc's errors into ours."""

    def __init__(self, channel: grpc.Channel, timeout: float | None, metadata: Metadata, *, progress: bool) -> None:
        self.channel = channel
        self.timeout = timeout
        self.metadata = tuple(metadata)
        self.progress = progress

    def deadline(self, timeout: float | None) -> float | None:
        return self.timeout if timeout is None else timeout

    def run(self, call: Call[Reply, Result], timeout: float | None, metadata: Metadata = ()) -> Result:
        method = self.channel.unary_unary(call.method, type(call.request).SerializeToString, call.reply_type.FromString)
        try:
            with on_its_way(call.request, shown=self.progress):
                reply = method(call.request, self.deadline(timeout), (*self.metadata, *metadata))
        except grpc.RpcError as error:
            raise call_error(error) from None
        return call.read(reply)

    def stream(
        self, call: Call[Reply, Result], timeout: float | None, metadata: Metadata = (), *, wait_for_ready: bool = False
    ) -> Generator[Result, None, None]:
        method = self.channel.unary_stream(call.method, type(call.request).SerializeToString, call.reply_type.FromString)
        replies = method(call.request, timeout, (*self.metadata, *metadata), wait_for_ready=wait_for_ready)

        def read() -> Generator[Result, None, None]:
            try:
                with ExitStack() as line:
                    line.enter_context(on_its_way(call.request, shown=self.progress))
                    for reply in replies:
                        line.close()
                        yield call.read(reply)
            except grpc.RpcError as error:
                raise call_error(error) from None
            finally:
                replies.cancel()  # for the reader who leaves early

        return read()


class Client:
    """A connection to one server, for use by any number of threads.

    Connects at the first call, and again by itself. Every call raises `CallError` when it ends with an error status.

    * `timeout` is the deadline of a call in seconds, None for none; a method's own `timeout` goes before it.
    * `max_message_bytes` limits requests and replies, -1 not at all; the server has a limit of its own.
    * A prediction or reading call that is UNAVAILABLE is tried `attempts` times in all (1 to 5), within its deadline, after
      0.1 s, 0.2 s and so on. Calls that change something are sent once.
    * `metadata` goes with every call, an authorization token for one.
    * Tensors in results are numpy arrays (BF16 as float32), or torch tensors with `tensors="torch"`.
    * `progress` shows a line, in a terminal or a notebook, while a request of more than 1 MiB runs; of a stream, until its first message.
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
            channel = grpc.secure_channel(target, secret, options) if secret else grpc.insecure_channel(target, options)
            return _Port(channel, timeout, metadata, progress=progress)

        self._addresses = address, management_address or MANAGEMENT_ADDRESS
        self._inference, self._management = map(connect, self._addresses)
        self._tensors: Tensors = tensors

    def predict(
        self,
        model: str,
        inputs: object,
        *,
        version: str = "",
        request_id: str = "",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Prediction:
        """Run `model` once and return its result.

        `inputs` is a mapping from input names to bytes, str, arrays, torch tensors or JSON; anything else is the input "data". An
        empty `version` means the default one. Raises TypeError or ValueError, before anything is sent, for an input that cannot be.
        """
        return self._inference.run(calls.predict(model, inputs, version, request_id, self._tensors), timeout, metadata)

    def stream(
        self,
        model: str,
        inputs: object,
        *,
        version: str = "",
        request_id: str = "",
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Generator[Prediction, None, None]:
        """Run `model` once and iterate over its results as they come; arguments as for `predict`.

        `timeout` is for the whole stream. Leaving the loop early, or `close()` on the iterator, cancels the call.
        """
        call = calls.predict_stream(model, inputs, version, request_id, self._tensors)
        return self._inference.stream(call, self._inference.deadline(timeout), metadata)

    def session(self, model: str, *, version: str = "", timeout: float | None = None, metadata: Metadata = ()) -> Session:
        """Open a session: its requests are run in order by one worker, so that a handler may keep state between them.

        `timeout` is for the whole session, None for no limit, whatever the client's.
        """
        method = self._inference.channel.stream_stream(
            calls.SESSION_METHOD,
            inference_pb2.PredictSessionRequest.SerializeToString,
            inference_pb2.PredictSessionResponse.FromString,
        )
        sent_on = (*self._inference.metadata, *metadata)
        session = Requests(model, version, self._tensors, progress=self._inference.progress)
        return Session(session, lambda requests: method(requests, timeout, sent_on))

    def health(self, service: str = "", *, timeout: float | None = None) -> HealthStatus:
        """Return the health of the server, or of "models/NAME" or "models/NAME/versions/VERSION"; true when SERVING.

        Raises CallError (NOT_FOUND) for a service the server does not know.
        """
        return self._inference.run(calls.health(service), timeout)

    def wait_ready(self, model: str = "", *, version: str = "", timeout: float = 60) -> None:
        """Block until the server, or a model on it, takes requests. Neither needs to be there yet.

        Raises CallError (DEADLINE_EXCEEDED), naming the last status, after `timeout` seconds.
        """
        service = calls.health_service(model, version)
        status = HealthStatus.UNKNOWN
        try:
            for status in self._inference.stream(calls.watch_health(service), timeout, wait_for_ready=True):
                if status:
                    return
        except CallError as error:
            raise not_ready(service, status.name, error) from None
        raise not_ready(service, status.name, None)

    def register(
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
        """Register an archive, start its workers and return the model, whose last version is the new one.

        What is not given comes from the archive and the server. With `max_workers` the number of workers follows the load. Waits until
        the version takes requests, unless `wait` is false. Raises CallError (FAILED_PRECONDITION, MODEL_LOAD_FAILED) with the cause when
        it does not load.
        """
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
        return self._management.run(call, timeout)

    def unregister(self, model: str, version: str = "", *, wait: bool = True, timeout: float = 600) -> None:
        """Drain and remove a version, or all of them; accepted requests are finished first."""
        self._management.run(calls.unregister(model, version, wait), timeout)

    def model(self, name: str, *, timeout: float | None = None) -> Model:
        """Return one model with its versions and workers."""
        return self._management.run(calls.model(name), timeout)

    def models(self, *, timeout: float | None = None) -> Models:
        """Return all models, sorted by name; `timeout` is for each page of them."""
        found, token = self._management.run(calls.models(""), timeout)
        while token:
            page, token = self._management.run(calls.models(token), timeout)
            found += page
        return Models(found)

    def scale(
        self, model: str, workers: int, *, max_workers: int | None = None, version: str = "", wait: bool = True, timeout: float = 600
    ) -> Model:
        """Set the number of workers of a version and return the model, by default when they are ready.

        With `max_workers` their number follows the load, between the two.
        """
        return self._management.run(calls.scale(model, workers, max_workers, version, wait), timeout)

    def set_default(self, model: str, version: str, *, timeout: float | None = None) -> Model:
        """Make `version` the one that requests without a version get."""
        return self._management.run(calls.set_default(model, version), timeout)

    def watch(self, model: str = "", *, timeout: float | None = None) -> Generator[ModelEvent, None, None]:
        """Iterate over the present state of every version of `model` (or of all), then over each change.

        Leaving the loop, or `close()` on the iterator, ends the call, and so does its `timeout`, by CallError (DEADLINE_EXCEEDED); None
        for no limit, whatever the client's.
        """
        return self._management.stream(calls.watch(model), timeout)

    def close(self) -> None:
        """End the connection and the calls that run on it."""
        self._inference.channel.close()
        self._management.channel.close()

    def __repr__(self) -> str:
        address, management_address = self._addresses
        return f"Client({address!r}, management_address={management_address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
