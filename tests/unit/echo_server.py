"""A real gRPC server of our API that echoes: what the client and the commands are tested against, on a free port of the loopback.

Models are behaviours: "echo" returns its inputs, "metadata" what came with the call, "digits" always a seven; "missing" and "busy"
end with errors, "flaky" is UNAVAILABLE twice, "slow" and "endless" go on until the caller leaves.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servegrpc.v1 import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc
from servegrpc.values import encode_value


def abort(context, code, message, *details):
    """End a call with an error status that has details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def model_not_found(context, name):
    info = error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="servegrpc", metadata={"model_name": name, "models": "echo"})
    abort(context, grpc.StatusCode.NOT_FOUND, f'No model "{name}"; models: echo.', info)


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self):
        self.calls = 0
        self.left = threading.Event()

    def reply(self, kind, request, output):
        timing = inference_pb2.Timing(queue=Duration(nanos=2_000_000), handler=Duration(seconds=1, nanos=500_000_000), batch_size=3)
        version, request_id = request.model_version or "1.0", request.request_id or "made-up"
        return kind(output=output, model_name=request.model_name, model_version=version, request_id=request_id, timing=timing)

    def Predict(self, request, context):
        self.calls += 1
        wait = until_ended(context, self.left)
        name = request.model_name
        if name in ("missing", "no-such-model"):
            model_not_found(context, name)
        if name == "digits":
            return self.reply(inference_pb2.PredictResponse, request, encode_value({"digit": 7, "probability": 0.98}))
        if name == "busy":
            violation = error_details_pb2.BadRequest.FieldViolation(field="inputs.data", description="is too long")
            details = (
                error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000)),
                error_details_pb2.BadRequest(field_violations=[violation]),
            )
            abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "1000 requests wait already.", *details)
        if name == "flaky" and self.calls < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        if name == "unimplemented":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        if name == "slow":
            wait()
        if name == "metadata":
            return self.reply(inference_pb2.PredictResponse, request, encode_value(dict(context.invocation_metadata())))
        return self.reply(inference_pb2.PredictResponse, request, echoed(request))

    def PredictStream(self, request, context):
        wait = until_ended(context, self.left)
        if request.model_name == "missing":
            model_not_found(context, request.model_name)
        yield self.reply(inference_pb2.PredictStreamResponse, request, echoed(request))
        if request.model_name == "endless":
            wait()
        yield self.reply(inference_pb2.PredictStreamResponse, request, encode_value("end"))

    def PredictSession(self, requests, context):
        for request in requests:
            yield self.reply(inference_pb2.PredictSessionResponse, request, echoed(request))


def until_ended(context, left):
    """Return a function that blocks until the call has ended; `left` is set at its end in any case."""
    ended = threading.Event()

    def end():
        left.set()
        ended.set()

    if not context.add_callback(end):
        end()
    return lambda: ended.wait(10)


def echoed(request):
    """The input "data", or all inputs by name when there are others."""
    if list(request.inputs) == ["data"]:
        return request.inputs["data"]
    output = encode_value({})
    for name, value in request.inputs.items():
        output.named.values[name].CopyFrom(value)
    return output


class Management(management_pb2_grpc.ManagementServiceServicer):
    """Keeps models without loading anything; lists two a page."""

    def __init__(self):
        self.models = {}
        self.requests = []
        self.events = []  # what WatchModels sends before it ends; without any it sends the models and goes on
        self.left = threading.Event()

    def RegisterModel(self, request, context):
        self.requests.append(request)
        model = management_pb2.Model(name=request.model_name or request.archive.removesuffix(".mar"), default_version="1.0")
        worker = management_pb2.Worker(id=4, state=management_pb2.WORKER_STATE_READY, pid=77, device="cpu", resident_memory_bytes=2**20)
        worker.start_time.FromSeconds(1_700_000_000)
        version = model.versions.add(
            version="1.0", state=management_pb2.MODEL_STATE_ACTIVE, archive=request.archive, settings=request.settings
        )
        version.workers.append(worker)
        version.target_workers = request.workers if request.HasField("workers") else 1
        version.register_time.FromSeconds(1_700_000_000)
        self.models[model.name] = model
        return management_pb2.RegisterModelResponse(model=model, model_version="1.0")

    def UnregisterModel(self, request, context):
        self.find(request, context)
        del self.models[request.model_name]
        return management_pb2.UnregisterModelResponse()

    def GetModel(self, request, context):
        return management_pb2.GetModelResponse(model=self.find(request, context))

    def ListModels(self, request, context):
        names, start = sorted(self.models), int(request.page_token or 0)
        token = str(start + 2) if start + 2 < len(names) else ""
        return management_pb2.ListModelsResponse(models=[self.models[name] for name in names[start : start + 2]], next_page_token=token)

    def ScaleModel(self, request, context):
        model = self.find(request, context)
        model.versions[0].target_workers = request.workers
        return management_pb2.ScaleModelResponse(model=model)

    def SetDefaultVersion(self, request, context):
        model = self.find(request, context)
        model.default_version = request.model_version
        return management_pb2.SetDefaultVersionResponse(model=model)

    def WatchModels(self, request, context):
        wait = until_ended(context, self.left)
        yield from self.events
        if self.events:
            return
        for name, model in self.models.items():
            version = model.versions[0]
            yield management_pb2.WatchModelsResponse(model_name=name, model_version=version.version, state=version.state, target_workers=1)
        wait()

    def find(self, request, context):
        if request.model_name not in self.models:
            model_not_found(context, request.model_name)
        return self.models[request.model_name]


class Health(health.HealthServicer):
    """The usual health service, which also tells when somebody watches."""

    def __init__(self):
        self.watched = threading.Event()
        super().__init__()

    def Watch(self, request, context, send_response_callback=None):
        super().Watch(request, context, send_response_callback)
        self.watched.set()


class EchoServer:
    """The running server: one port for everything, and its servicers to look into."""

    def __init__(self, server, port, tls_port):
        self.server = server
        self.address = f"127.0.0.1:{port}"
        self.tls_address = f"localhost:{tls_port}"
        self.inference, self.management, self.health = Inference(), Management(), Health()
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self.inference, server)
        management_pb2_grpc.add_ManagementServiceServicer_to_server(self.management, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)

    def set_health(self, service, serving):
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self.health.set(service, status)


@contextmanager
def echo_server(tls=None):
    """Run an EchoServer; `tls` are grpc.ServerCredentials for a second port."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        running = EchoServer(server, port, server.add_secure_port("127.0.0.1:0", tls) if tls else 0)
        server.start()
        try:
            yield running
        finally:
            server.stop(0).wait()
