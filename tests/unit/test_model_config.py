"""model-config.yaml: values, warnings with their line, and text that is no YAML."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegrpc.core.model_config import ModelConfig, parse_model_config
from servegrpc.errors import InvalidArchive


def test_every_key():
    """Every key with a good value → its field, delays in seconds, warnings of no wrong one."""
    config = parse_model_config(
        "minWorkers: 1\nmaxWorkers: 4\nbatchSize: 8\nmaxBatchDelay: 250\nresponseTimeout: 60\nstartupTimeout: 90\n"
        "jobQueueSize: 500\ndeviceType: gpu\ndeviceIds: [0, 2]\nexposeErrors: true\ntrusted_pickle: true\n"
        "maxRetryTimeoutInSec: 30\nclientTimeoutInMills: 1500\nuseJobTicket: true\nsequenceBatching: true\nsequenceMaxIdleMSec: 60000\n"
        "sequenceTimeoutMSec: 90000\nmaxSequenceJobQueueSize: 5\nmaxNumSequence: 6\ncontinuousBatching: true\nasyncCommunication: true\n"
        "useVenv: true\nonSlowReader: end\nstreamBufferBytes: 65536\njobQueueBytes: 9000000000\nonWorkerLoss: fail\n"
        "isolateErrors: true\nrefuseHopeless: false\ncoolDown: 5\n"
    )
    assert config == ModelConfig(
        min_workers=1,
        max_workers=4,
        batch_size=8,
        max_batch_delay_seconds=0.25,
        response_timeout_seconds=60,
        startup_timeout_seconds=90,
        max_queue_size=500,
        device_type="gpu",
        device_ids=(0, 2),
        expose_errors=True,
        trusted_pickle=True,
        max_retry_timeout_seconds=30,
        client_timeout_seconds=1.5,
        use_job_ticket=True,
        sequence_batching=True,
        sequence_max_idle_seconds=60,
        sequence_timeout_seconds=90,
        max_sequence_queue_size=5,
        max_sequences=32,
        continuous_batching=True,
        async_communication=True,
        use_venv=True,
        on_slow_reader="end",
        stream_buffer_bytes=65536,
        max_queue_bytes=9000000000,
        on_worker_loss="fail",
        isolate_errors=True,
        refuse_hopeless=False,
        cool_down_seconds=5,
        raw=config.raw,
        warnings=config.warnings,
    )
    assert all("no effect" in warning for warning in config.warnings)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_nothing(text):
    """An empty file → every default."""
    assert parse_model_config(text) == ModelConfig()


def test_zero_is_a_value():
    """Zero where zero means something → kept, not taken for absent."""
    config = parse_model_config("maxBatchDelay: 0\ncoolDown: 0\n")
    assert (config.max_batch_delay_seconds, config.cool_down_seconds, config.warnings) == (0, 0, ())


def test_no_workers():
    """Zero for the numbers of workers → as if they were not there, with a warning each (TorchServe takes 0 for unset)."""
    config = parse_model_config("minWorkers: 0\nmaxWorkers: 0\n")
    assert (config.min_workers, config.max_workers) == (None, None)
    assert (
        config.warnings[0]
        == "model-config.yaml, line 1: minWorkers must be a whole number of at least 1 and at most 2147483647, not 0; ignored"
    )
    assert len(config.warnings) == 2


def test_zero_switches_off():
    """Zero for a time-out that TorchServe switches off with it → as if it were not there."""
    config = parse_model_config("clientTimeoutInMills: 0\nsequenceMaxIdleMSec: 0\nsequenceTimeoutMSec: 0\n")
    assert config == ModelConfig(raw=config.raw)


def test_fewest_sequences():
    """Fewer sequences than all workers take at once → as many as those (TorchServe)."""
    assert parse_model_config("maxNumSequence: 3\nbatchSize: 4\nmaxWorkers: 2\n").max_sequences == 8
    assert parse_model_config("maxNumSequence: 30\nbatchSize: 4\nmaxWorkers: 2\n").max_sequences == 30
    assert parse_model_config("batchSize: 4\n").max_sequences is None


def test_nothing_asked_for():
    """Keys without effect that ask for nothing → no warning."""
    text = "parallelLevel: 0\nparallelType: ''\ntorchrun:\nuseJobTicket: false\nclientTimeoutInMills: 0\nmaxRetryTimeoutInSec: 0\n"
    assert parse_model_config(text).warnings == ()


def test_warns_of_no_effect():
    """A key without effect that asks for something → a warning with the reason."""
    (warning,) = parse_model_config("batchSize: 2\nclientTimeoutInMills: 5\n").warnings
    assert warning.startswith("model-config.yaml, line 2: clientTimeoutInMills: no effect; ")


def test_without_effect():
    """Keys that ask for several processes per worker → read, and one warning that names them all."""
    config = parse_model_config("minWorkers: 1\nparallelType: tp\nparallelLevel: 2\ntorchrun:\n  nproc-per-node: 2\n")
    assert (config.parallel_type, config.parallel_level) == ("tp", 2)
    assert config.warnings == (
        "model-config.yaml, line 4: torchrun, parallelType, parallelLevel: no effect; a worker is one process with one device",
    )


def test_handler_keys():
    """Keys of the handler → kept in raw, without a warning."""
    config = parse_model_config("handler:\n  profile: true\n  labels: [a, b]\npt2: {compile: {enable: True}}\n")
    assert config.raw == {"handler": {"profile": True, "labels": ["a", "b"]}, "pt2": {"compile": {"enable": True}}}
    assert config.warnings == ()


def test_warning_names_the_line():
    """A word for a number → the sentence names file, line, key and value."""
    config = parse_model_config("# sizes\nminWorkers: 1\nbatchSize: four\n")
    assert config.warnings == ("model-config.yaml, line 3: batchSize must be a whole number of at least 1, not 'four'; ignored",)
    assert config.batch_size is None


@pytest.mark.parametrize(
    "text",
    [
        "batchSize: 0",
        "batchSize: true",
        "batchSize: 1.5",
        "batchSize:",
        "batchSize: 99999999999",
        "maxBatchDelay: -1",
        "responseTimeout: 0",
        "startupTimeout: 1m",
        "jobQueueSize: 0",
        "minWorkers: -1",
        "deviceType: tpu",
        "deviceType: [cpu]",
        "deviceIds: 0",
        "deviceIds: [0, '1']",
        "deviceIds: [-1]",
        "exposeErrors: 'yes'",
        "trusted_pickle: 1",
        "maxRetryTimeoutInSec: -1",
        "jobQueueBytes: 0",
        "onWorkerLoss: ignore",
        "isolateErrors: 1",
        "refuseHopeless: 0",
        "coolDown: -1",
        "clientTimeoutInMills: soon",
        "useJobTicket: 1",
        "sequenceBatching: 'on'",
        "sequenceMaxIdleMSec: -1",
        "sequenceTimeoutMSec: 0.5",
        "maxSequenceJobQueueSize: 0",
        "maxNumSequence: 0",
        "continuousBatching: 'true'",
        "asyncCommunication: 0",
        "useVenv: [true]",
        "onSlowReader: drop",
        "streamBufferBytes: 0",
    ],
)
def test_bad_value(text):
    """A wrong type or range → one warning and the default."""
    config = parse_model_config(text)
    assert len(config.warnings) == 1
    assert config == ModelConfig(raw=config.raw, warnings=config.warnings)


def test_fewer_most_than_least_workers():
    """MaxWorkers below minWorkers → both ignored, and said so."""
    config = parse_model_config("minWorkers: 4\nmaxWorkers: 2\n")
    assert (config.min_workers, config.max_workers) == (None, None)
    assert config.warnings == ("model-config.yaml, line 2: maxWorkers must be at least minWorkers (4), not 2; both ignored",)


def test_syntax_error():
    """Text that is no YAML → InvalidArchive with the file's name and the line."""
    with pytest.raises(InvalidArchive, match=r"^settings\.yaml, line 3: not valid YAML"):
        parse_model_config("a: 1\nb: 2\nc: {]\n", name="settings.yaml")


@pytest.mark.parametrize(
    "text", ["- 1\n", "just words", "a: \x00", "when: 2001-13-45", "a: !!python/object:os.system {}", "[" * 1000, "a: *b"]
)
def test_no_mapping(text):
    """Lists, words, bad characters, bad dates, foreign objects, endless nesting → InvalidArchive."""
    with pytest.raises(InvalidArchive):
        parse_model_config(text)


@given(st.text(alphabet="abBS:-[]{}&*!#|>'\"% \n\t01", max_size=40))
def test_any_text(text):
    """Any text → a ModelConfig or InvalidArchive, never another error."""
    with contextlib.suppress(InvalidArchive):
        parse_model_config("batchSize: " + text)
