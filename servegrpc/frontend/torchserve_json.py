"""What TorchServe's services say in JSON: its keys, in its order and its form (`DescribeModelResponse.java`, Gson's pretty printing)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import psutil

from servegrpc.core.placement import DeviceSlots
from servegrpc.core.registry import ModelVersion
from servegrpc.core.worker import WorkerRecord, WorkerState
from servegrpc.frontend.devices import gpu_usage

RETRY_SECONDS = 300  # TorchServe's maxRetryTimeoutInSec where the archive says nothing


def pretty(content: object) -> str:
    """Return JSON, indented by two, all characters as they are but the two that JavaScript takes for ends of lines."""
    return json.dumps(content, indent=2, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def describe(version: ModelVersion, slots: DeviceSlots, *, loaded_at_startup: bool) -> dict[str, object]:
    """Return the description of one version."""
    settings, config, pool = version.settings, version.archive.config, version.pool
    records = pool.records()
    stateful = bool(config.sequence_max_idle_seconds)
    gpus = tuple(slots.candidates(config.device_type, config.device_ids))
    return {
        "modelName": version.name,
        "modelVersion": version.version,
        "modelUrl": version.archive.source,
        "runtime": version.archive.runtime,
        "minWorkers": version.autoscaler.min_workers,
        "maxWorkers": version.autoscaler.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": _milliseconds(settings.max_batch_delay_seconds),
        "responseTimeout": _whole(settings.response_timeout_seconds),
        "startupTimeout": _whole(settings.startup_timeout_seconds),
        "maxRetryTimeoutInSec": _whole(RETRY_SECONDS if config.max_retry_timeout_seconds is None else config.max_retry_timeout_seconds),
        "clientTimeoutInMills": _milliseconds(config.client_timeout_seconds),
        "parallelType": config.parallel_type,
        "parallelLevel": config.parallel_level or 0,
        "deviceType": "gpu" if gpus else "cpu",
        **({"deviceIds": list(gpus)} if gpus and gpus == config.device_ids else {}),
        "continuousBatching": config.continuous_batching,
        "useJobTicket": config.use_job_ticket,
        "useVenv": config.use_venv,
        "stateful": stateful,
        "sequenceMaxIdleMSec": _milliseconds(config.sequence_max_idle_seconds),
        "sequenceTimeoutMSec": _milliseconds(config.sequence_timeout_seconds),
        "maxNumSequence": settings.max_sequences if stateful else 0,
        "maxSequenceJobQueueSize": settings.max_sequence_queue_size if stateful else 0,
        "loadedAtStartup": loaded_at_startup,
        "workers": [_worker(record) for record in records],
        "jobQueueStatus": {
            "remainingCapacity": max(0, settings.max_queue_size - len(pool.queue)),
            "pendingRequests": len(pool.queue),
        },
    }


def _worker(record: WorkerRecord) -> Mapping[str, object]:
    pid, gpu = record.worker.pid if record.worker else 0, record.device.gpu
    try:
        memory = psutil.Process(pid).memory_info().rss if pid else 0
    except psutil.Error:
        memory = 0
    started = datetime.fromtimestamp(record.start_time, UTC)
    return {
        "id": str(record.id),
        "startTime": started.strftime("%Y-%m-%dT%H:%M:%S.") + f"{started.microsecond // 1000:03}Z",
        "status": "READY" if record.state is WorkerState.READY else "UNLOADING",
        "memoryUsage": memory,
        "pid": pid,
        "gpu": gpu is not None,
        "gpuUsage": "N/A" if gpu is None else gpu_usage(gpu),
    }


def _milliseconds(seconds: float | None) -> int:
    return round((seconds or 0) * 1000)


def _whole(seconds: float) -> int:
    return max(1, round(seconds)) if seconds else 0  # a fraction is not nothing
