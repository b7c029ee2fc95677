"""MicroBatching: parts of a batch in several steps at once, in order, and what becomes of exceptions."""

import threading

import pytest
import torch

from servegrpc.handlers import BaseHandler, InvalidInput
from servegrpc.handlers.micro_batching import MicroBatching
from servegrpc.worker.context import Context


class Stepwise(BaseHandler):
    """Adds one in each step; `hooks` are called in a step before that."""

    def __init__(self, micro_batch_size=2, parallelism=None):
        super().__init__()
        self.hooks = {}
        self.handle = MicroBatching(self, micro_batch_size, parallelism)

    def preprocess(self, data):
        self.hooks.get("preprocess", bool)(data)
        return [row + 1 for row in data]

    def inference(self, data):
        self.hooks.get("inference", bool)(data)
        return [row + 1 for row in data]

    def postprocess(self, data):
        self.hooks.get("postprocess", bool)(data)
        return [row + 1 for row in data]

    def describe_handle(self):
        return "adds three"


@pytest.fixture
def start():
    started = []

    def start(*arguments, headers=None):
        handler = Stepwise(*arguments)
        started.append(handler)
        context = Context(model_name="m", model_dir=".", manifest={}, batch_size=8, gpu=None, model_yaml_config={})
        headers = headers or [{}] * 5
        context.begin_batch([str(index) for index, _ in enumerate(headers)], headers)
        return handler, context

    yield start
    for handler in started:
        handler.handle.shutdown()


def test_results_are_in_order(start):
    """Five rows in parts of two → one result each, in order, and HandlerTime."""
    handler, context = start()
    assert handler.handle([0, 10, 20, 30, 40], context) == [3, 13, 23, 33, 43]
    assert [record.name for record in context.metrics.drain()] == ["HandlerTime"]


def test_steps_overlap(start):
    """The first part's inference waits until the second part's preprocess has run → no deadlock: they run at the same time."""
    handler, context = start()
    later = threading.Event()
    handler.hooks["preprocess"] = lambda data: data[0] == 20 and later.set()
    handler.hooks["inference"] = lambda data: data[0] == 1 and later.wait(30)
    assert handler.handle([0, 10, 20, 30], context) == [3, 13, 23, 33]
    assert later.is_set()


def test_a_step_runs_on_one_thread_unless_asked(start):
    """Five parts and parallelism 1 → never two in one step; with parallelism 2 two meet in it."""
    handler, context = start(1)
    inside, most = [], []

    def note(data):
        inside.append(data)
        most.append(len(inside))
        inside.pop()

    handler.hooks["inference"] = note
    handler.handle([0, 1, 2, 3, 4], context)
    assert max(most) == 1
    handler.handle.parallelism = {"inference": 2}
    meeting = threading.Barrier(2, timeout=30)
    handler.hooks["inference"] = lambda data: meeting.wait()
    assert handler.handle([0, 1, 2, 3], context) == [3, 4, 5, 6]


def test_parallelism_is_a_copy(start):
    """Changing what `parallelism` returned → nothing; assigning → the steps that are named."""
    handler, _ = start(1, {"preprocess": 2})
    handler.handle.parallelism["inference"] = 9
    handler.handle.parallelism = {"postprocess": 3}
    assert handler.handle.parallelism == {"preprocess": 2, "inference": 1, "postprocess": 3}


@pytest.mark.parametrize("parallelism", [{"inference": 0}, {"training": 1}])
def test_impossible_parallelism_is_an_error(parallelism):
    """No thread for a step, or an unknown step → ValueError."""
    with pytest.raises(ValueError, match="parallelism"):
        Stepwise(1, parallelism)


def test_impossible_size_is_an_error():
    """Parts of no rows → ValueError."""
    with pytest.raises(ValueError, match="micro_batch_size"):
        Stepwise(0)


@pytest.mark.parametrize("step", ["preprocess", "inference", "postprocess"])
def test_an_exception_fails_its_batch_only(start, step):
    """A step raises for one part → that exception, and the next batch is handled."""
    handler, context = start()

    def fail(data):
        if data[0] >= 20:
            raise ZeroDivisionError

    handler.hooks[step] = fail
    with pytest.raises(ZeroDivisionError):
        handler.handle([0, 10, 20, 30, 40], context)
    handler.hooks.clear()
    assert handler.handle([0], context) == [3]


def test_a_refused_row_is_the_batchs(start):
    """The second row of the second part is refused → InvalidInput with its place in the batch."""
    handler, context = start()

    def refuse(data):
        if 30 in data:
            raise InvalidInput("no", row=data.index(30))

    handler.hooks["preprocess"] = refuse
    with pytest.raises(InvalidInput) as refused:
        handler.handle([0, 10, 20, 30, 40], context)
    assert refused.value.row == 3


def test_steps_know_their_part(start):
    """get_micro_batch_idx in a step → the number of its part; elsewhere → None."""
    handler, context = start()
    seen = {}
    handler.hooks["inference"] = lambda data: seen.update({data[0]: handler.handle.get_micro_batch_idx()})
    handler.handle([0, 10, 20], context)
    assert (seen, handler.handle.get_micro_batch_idx()) == ({1: 0, 21: 1}, None)


def test_describe_goes_around_it(start):
    """A request with the header "describe" → described, the others handled."""
    handler, context = start(headers=[{}, {"describe": "True"}])
    assert handler.handle([0, 10], context) == [3, "adds three"]


def test_shutdown_ends_the_threads(start):
    """The threads are shut down → none is left; a later batch starts new ones."""
    handler, context = start()
    handler.handle([0, 1, 2], context)
    handler.handle.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("micro-batch")]
    assert handler.handle([0], context) == [3]


def test_gradients_are_off_on_its_threads(tmp_path):
    """A model under BaseHandler's own steps → its outputs, without gradients."""
    (tmp_path / "line_net.py").write_text(
        "import torch\n\nclass Line(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(1, 1)\n"
    )

    class Watching(BaseHandler):
        def postprocess(self, data):
            assert not data.requires_grad
            return super().postprocess(data)

    handler = Watching()
    files = {"modelFile": "line_net.py"}
    context = Context(model_name="m", model_dir=str(tmp_path), manifest={"model": files}, batch_size=2, gpu=None, model_yaml_config={})
    handler.initialize(context)
    handler.handle = MicroBatching(handler)
    context.begin_batch(["a", "b"], [{}, {}])
    results = handler.handle([{"data": torch.ones(1)}, {"data": torch.zeros(1)}], context)
    assert torch.tensor(results).shape == (2, 1)
    handler.handle.shutdown()
