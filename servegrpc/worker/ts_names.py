"""TorchServe 0.12's modules and public names, and where each lives here; data only, read by `worker.ts_alias`.

`docs/torchserve-conformance.md` shows it to users, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping

HANDLERS = "servegrpc.handlers"
TS = "servegrpc.worker.ts"
METRICS = "servegrpc.worker.handler_metrics"


def _from(module: str, *names: str) -> dict[str, str]:
    """Name the attributes of a module of ours; `there=here` where the names differ."""
    pairs = [name.partition("=") for name in names]
    return {there: f"{module}:{here or there}" for there, _, here in pairs}


def _modules(*names: str) -> dict[str, str]:
    """Name the modules that TorchServe's module imports, which `from … import *` hands on: `os`, or `np=numpy`."""
    pairs = [name.partition("=") for name in names]
    return {there: here or there for there, _, here in pairs}


_BASE_FLAGS = ("IPEX_AVAILABLE", "ONNX_AVAILABLE", "PROFILER_AVAILABLE", "PT230_AVAILABLE", "PT2_AVAILABLE", "XLA_AVAILABLE")
_TIMED = _from(f"{HANDLERS}.timing", "timed")
_LABELS = _from(f"{HANDLERS}.labels", "load_label_mapping", "map_class_to_label")
_BASE = _from(f"{HANDLERS}.base_handler", "BaseHandler")
_CONTEXT = _from("servegrpc.worker.context", "Context", "RequestProcessor")
_DIMENSION = _from(METRICS, "Dimension")
_TYPES = _from(METRICS, "MetricTypes")
_METRIC_UNIT = _from(f"{TS}.metrics", "MetricUnit", "Units")
_F = _modules("torch", "F=torch.nn.functional")
_LOGGER = _from(TS, "logger")
_CLEANUP = _from(f"{HANDLERS}.text_utils", "CLEANUP_REGEX")

MODULES: Mapping[str, Mapping[str, str]] = {
    "ts": _from(TS, "__version__"),
    "ts.version": _from(TS, "__version__"),
    "ts.context": _CONTEXT | _modules("os"),
    "ts.service": _LOGGER
    | _from(f"{TS}.model_loader", "PREDICTION_METRIC", "Service")
    | _from(f"{TS}.metrics", "emit_metrics")
    | _from(f"{TS}.util", "PredictionException", "get_yaml_config")
    | _CONTEXT
    | _modules("logging", "os", "time", "ts"),
    "ts.model_loader": _from(f"{TS}.metrics", "MetricsCacheYamlImpl")
    | _from(f"{TS}.model_loader", "ModelLoader=TsModelLoader", "ModelLoaderFactory", "Service", "TsModelLoader")
    | _from(f"{TS}.util", "list_classes_from_module"),
    "ts.launcher": _from("servegrpc.compat_api.launcher", "start", "stop", "register_model", "register_model_with_params"),
    "ts.utils": {},
    "ts.utils.util": _LOGGER
    | _CLEANUP
    | _from(f"{TS}.util", "PT2Backend", "PredictionException", "check_valid_pt2_backend", "deprecated")
    | _from(f"{TS}.util", "get_yaml_config", "list_classes_from_module")
    | _LABELS
    | _modules("enum", "inspect", "itertools", "json", "logging", "os", "re", "yaml"),
    "ts.utils.timeit_decorator": _from(f"{TS}.util", "timeit"),
    "ts.utils.hf_utils": _from(f"{TS}.downloads", "download_model=download_hub_model"),
    "ts.protocol": {},
    "ts.protocol.otf_message_handler": _from(f"{TS}.handler_utils", "send_intermediate_predict_response")
    | _from(f"{TS}.util", "deprecated"),
    "ts.metrics": {},
    "ts.metrics.dimension": _DIMENSION,
    "ts.metrics.unit": _from(f"{TS}.metrics", "Units"),
    "ts.metrics.metric_type_enum": _TYPES,
    "ts.metrics.metric": _from(f"{TS}.metrics", "Metric") | _METRIC_UNIT | _from(METRICS, "CachingMetric") | _TYPES,
    "ts.metrics.metric_abstract": _from(METRICS, "MetricAbstract=CachingMetric") | _METRIC_UNIT | _TYPES,
    "ts.metrics.caching_metric": _LOGGER | _from(METRICS, "CachingMetric", "MetricAbstract=CachingMetric") | _DIMENSION | _TYPES,
    "ts.metrics.metric_cache_abstract": _from(METRICS, "MetricCacheAbstract=HandlerMetrics", "MetricAbstract=CachingMetric")
    | _DIMENSION
    | _TYPES,
    "ts.metrics.metric_cache_yaml_impl": _LOGGER
    | _from(f"{TS}.metrics", "MetricsCacheYamlImpl")
    | _from(METRICS, "CachingMetric", "MetricCacheAbstract=HandlerMetrics")
    | _TYPES,
    "ts.metrics.metric_cache_errors": _from(METRICS, "MetricsCacheKeyError", "MetricsCacheTypeError", "MetricsCacheValueError")
    | _from(f"{TS}.metrics", "GeneralMetricsCacheError", "MetricsCacheIOError", "MetricsCachePyYamlError"),
    "ts.metrics.metrics_store": _from(f"{TS}.metrics", "Metric", "MetricsStore") | _DIMENSION,
    "ts.metrics.metric_encoder": _from(f"{TS}.metrics", "Metric", "MetricEncoder") | _DIMENSION,
    "ts.metrics.process_memory_metric": _from(f"{TS}.process_memory", "check_process_mem_usage", "get_cpu_usage"),
    "ts.handler_utils": {},
    "ts.handler_utils.timer": _TIMED | _modules("time", "torch"),
    "ts.handler_utils.utils": _from(f"{TS}.handler_utils", "import_class", "send_intermediate_predict_response")
    | _from("servegrpc.worker.context", "Context"),
    "ts.handler_utils.micro_batching": _from(f"{HANDLERS}.base_handler", "PROFILER_AVAILABLE")
    | _from(f"{HANDLERS}.micro_batching", "MicroBatching"),
    "ts.handler_utils.text_utils": _from(f"{HANDLERS}.text_utils", "get_tokenizer", "ngrams_iterator"),
    "ts.handler_utils.hf_batch_streamer": _from(f"{HANDLERS}.hf_batch_streamer", "TextIteratorStreamerBatch"),
    "ts.handler_utils.preprocess": {},
    "ts.handler_utils.distributed": {},
    "ts.torch_handler": {},
    "ts.torch_handler.base_handler": _LOGGER
    | _BASE
    | _from(f"{HANDLERS}.base_handler", *_BASE_FLAGS, "setup_ort_session")
    | _TIMED
    | _from(f"{HANDLERS}.labels", "load_label_mapping")
    | _from(f"{TS}.util", "check_valid_pt2_backend", "list_classes_from_module")
    | _from("torch.profiler", "ProfilerActivity", "profile", "record_function")
    | _modules("abc", "importlib", "logging", "os", "time", "torch"),
    "ts.torch_handler.vision_handler": _from(f"{HANDLERS}.vision_handler", "VisionHandler")
    | _BASE
    | _TIMED
    | _from("abc", "ABC")
    | _modules("Image=PIL.Image", "base64", "io", "torch"),
    "ts.torch_handler.image_classifier": _modules("transforms=torchvision.transforms")
    | _from(f"{HANDLERS}.image_classifier", "ImageClassifier")
    | _from(f"{HANDLERS}.vision_handler", "VisionHandler")
    | _from(f"{HANDLERS}.labels", "map_class_to_label")
    | _TIMED
    | _F,
    "ts.torch_handler.image_segmenter": _modules("T=torchvision.transforms")
    | _from(f"{HANDLERS}.image_segmenter", "ImageSegmenter")
    | _from(f"{HANDLERS}.vision_handler", "VisionHandler")
    | _modules("torch"),
    "ts.torch_handler.object_detector": _modules("transforms=torchvision.transforms")
    | _from(f"{HANDLERS}.object_detector", "ObjectDetector")
    | _from(f"{HANDLERS}.vision_handler", "VisionHandler")
    | _from(f"{HANDLERS}.labels", "map_class_to_label")
    | _modules("torch"),
    "ts.torch_handler.text_handler": _LOGGER
    | _from(f"{HANDLERS}.text_handler", "CONTRACTIONS_PATTERN", "TextHandler")
    | _from(f"{HANDLERS}.text_utils", "get_tokenizer")
    | _from(f"{HANDLERS}.contractions", "CONTRACTION_MAP")
    | _CLEANUP
    | _from("abc", "ABC")
    | _BASE
    | _F
    | _modules("logging", "os", "re", "string", "unicodedata"),
    "ts.torch_handler.text_classifier": _LOGGER
    | _from(f"{HANDLERS}.text_classifier", "TextClassifier")
    | _from(f"{HANDLERS}.text_handler", "TextHandler")
    | _from(f"{HANDLERS}.text_utils", "ngrams_iterator")
    | _from(f"{HANDLERS}.labels", "map_class_to_label")
    | _F
    | _modules("logging"),
    "ts.torch_handler.contractions": _from(f"{HANDLERS}.contractions", "CONTRACTION_MAP"),
    "ts.torch_handler.densenet_handler": _LOGGER
    | _from(f"{HANDLERS}.densenet_handler", "DenseNetHandler")
    | _from(f"{TS}.util", "list_classes_from_module")
    | _modules("importlib", "inspect", "io", "logging", "os", "time", "torch"),
    "ts.torch_handler.request_envelope": {},
    "ts.torch_handler.request_envelope.base": _from(f"{HANDLERS}.envelopes.base", "BaseEnvelope") | _from("abc", "ABC", "abstractmethod"),
    "ts.torch_handler.request_envelope.body": _from(f"{HANDLERS}.envelopes.body", "BodyEnvelope")
    | _from(f"{HANDLERS}.envelopes.base", "BaseEnvelope"),
    "ts.torch_handler.request_envelope.json": _from(f"{HANDLERS}.envelopes.json", "JSONEnvelope")
    | _from(f"{HANDLERS}.envelopes.base", "BaseEnvelope"),
    "ts.torch_handler.request_envelope.kserve": _LOGGER
    | _from(f"{HANDLERS}.envelopes.kserve", "KServeEnvelope")
    | _from(f"{HANDLERS}.envelopes.base", "BaseEnvelope"),
    "ts.torch_handler.request_envelope.kservev2": _LOGGER
    | _from(f"{HANDLERS}.envelopes.kservev2", "KServev2Envelope")
    | _from(f"{HANDLERS}.envelopes.base", "BaseEnvelope"),
    "ts.torch_handler.distributed": {},
    "ts.torch_handler.unit_tests": {},
    "ts.torch_handler.unit_tests.test_utils": {},
    "ts.torch_handler.unit_tests.test_utils.mock_context": _from(f"{TS}.mock_context", "MockContext")
    | _from(f"{TS}.metrics", "MetricsStore")
    | _from(f"{TS}.util", "get_yaml_config"),
    "ts.torch_handler.unit_tests.test_utils.model_dir": _from(f"{TS}.downloads", "copy_files", "download_model"),
}

_SERVER = "it is a part of TorchServe's server, which servegrpc replaces"
_SOCKET = "it reads and writes TorchServe's own socket between server and worker, which is not here"
_DALI = "it needs NVIDIA DALI, and servegrpc has no such handler; prepare the pictures in a VisionHandler"
_PIPPY = "it needs PiPPy, which is not maintained any more; use one GPU per worker"
_DEEPSPEED = "servegrpc does not start the processes that DeepSpeed needs; call DeepSpeed in a handler of your own"
_LLM = "it needs an engine of its own; start that engine in a handler of your own, or serve the model with transformers"
_TESTS = "it is one of TorchServe's own tests"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("ts.arg_parser", "ts.async_service", "ts.model_server", "ts.model_service_worker", "ts.utils.setup_model_venv"), _SERVER
    ),
    **dict.fromkeys(("ts.metrics.metric_collector", "ts.metrics.system_metrics"), _SERVER),
    "ts.version.version_path": "the version is in no file",
    **dict.fromkeys(("ts.launcher.Tee", "ts.launcher.PrintTillTheEnd"), _SERVER),
    **{
        f"ts.protocol.otf_message_handler.{name}": _SOCKET
        for name in (
            *("END_OF_LIST", "LOAD_MSG", "PREDICT_MSG", "RESPONSE", "bool_size", "int_size", "retrieve_msg"),
            *("create_load_model_response", "create_predict_response", "encode_response_headers"),
        )
    },
    **dict.fromkeys(("ts.service.create_predict_response", "ts.handler_utils.utils.create_predict_response"), _SOCKET),
    "ts.model_service": "it is the base class of MXNet Model Server's handlers; write a class with initialize and handle",
    "ts.llm_launcher": _LLM,
    "ts.torch_handler.vllm_handler": _LLM,
    "ts.torch_handler.trt_llm_handler": _LLM,
    **dict.fromkeys(("ts.torch_handler.dali_handler", "ts.torch_handler.dali_image_classifier"), _DALI),
    **dict.fromkeys(("ts.handler_utils.preprocess.dali", "ts.handler_utils.preprocess.built-in"), _DALI),
    **dict.fromkeys(("ts.handler_utils.distributed.pt_pippy", "ts.torch_handler.distributed.base_pippy_handler"), _PIPPY),
    **dict.fromkeys(("ts.handler_utils.distributed.deepspeed", "ts.torch_handler.distributed.base_deepspeed_handler"), _DEEPSPEED),
    **{
        f"ts.handler_utils.micro_batching.{name}": "it is a part of how TorchServe runs MicroBatching"
        for name in ("HANDLER_METHODS", "WorkerThread", "execute_call")
    },
    **dict.fromkeys(("ts.torch_handler.unit_tests.models", "ts.torch_handler.unit_tests.test_utils.model_dir.REPO_DIR"), _TESTS),
    "model_archiver.version.version_path": "the version is in no file",
}
"""Why something is not here, by module or by module and name."""

DEFAULT_HANDLERS: Mapping[str, str] = {
    "base_handler": "BaseHandler",
    "densenet_handler": "DenseNetHandler",
    "image_classifier": "ImageClassifier",
    "image_segmenter": "ImageSegmenter",
    "object_detector": "ObjectDetector",
    "text_classifier": "TextClassifier",
    "text_handler": "TextHandler",
    "vision_handler": "VisionHandler",
}
"""The handlers that an archive can name without a file of its own, in `servegrpc.handlers`, and their classes."""

ENVELOPES: Mapping[str, str] = {"body": "BodyEnvelope", "json": "JSONEnvelope", "kserve": "KServeEnvelope", "kservev2": "KServev2Envelope"}
"""The envelopes of TorchServe, in `servegrpc.handlers.envelopes`, and their classes."""
