"""The digits example: its handler on its committed weights."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from servegrpc.handlers import InvalidInput
from servegrpc.worker.context import Context

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def example():
    """The example's folder importable, as a worker has it; its modules' plain names are forgotten afterwards."""
    names = ("data", "handler", "model")
    sys.path.insert(0, str(EXAMPLE))
    yield importlib.import_module
    sys.path.remove(str(EXAMPLE))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def digits(example):
    handler = example("handler").DigitHandler()
    manifest = {"model": {"modelFile": "model.py", "serializedFile": "digits.pt"}}
    context = Context(model_name="digits", model_dir=str(EXAMPLE), manifest=manifest, batch_size=64, gpu=None, model_yaml_config={})
    handler.initialize(context)

    def predict(pictures: list[bytes]) -> list[dict[str, object]]:
        context.begin_batch([str(index) for index in range(len(pictures))], [{}] * len(pictures))
        return handler.handle([{"data": picture} for picture in pictures], context)

    return predict


@pytest.mark.slow
def test_held_out_pictures_predict_as_the_plain_model(example, digits):
    """Each held-out PNG through the handler → what the network says of the raw array; at least 98 % right."""
    pairs = example("data").held_out()
    _, raw, _, _ = example("data").split()
    model = example("model").DigitNet().eval()
    model.load_state_dict(torch.load(EXAMPLE / "digits.pt", weights_only=True))
    with torch.inference_mode():
        expected = model(torch.from_numpy(raw).float().div(16).unsqueeze(1)).argmax(dim=1).tolist()
    results = [result["digit"] for result in digits([picture for picture, _ in pairs])]
    assert results == expected
    assert sum(digit == label for digit, (_, label) in zip(results, pairs, strict=True)) >= 0.98 * len(pairs)


def test_samples_are_recognised(digits):
    """zero.png … nine.png → their digits and names, surely."""
    results = digits([(EXAMPLE / "samples" / f"{name}.png").read_bytes() for name in NAMES])
    assert [(result["digit"], result["name"]) for result in results] == list(enumerate(NAMES))
    assert all(0.9 < result["probability"] <= 1 for result in results)
    json.dumps(results)


def test_colour_pictures_are_read_as_gray(digits):
    """The same picture in RGB → the same answer."""
    sample = EXAMPLE / "samples" / "seven.png"
    colour = io.BytesIO()
    Image.open(sample).convert("RGB").save(colour, "PNG")
    assert digits([colour.getvalue()]) == digits([sample.read_bytes()])


def test_what_is_no_picture_is_refused(digits):
    """Bytes of no picture → InvalidInput for that row."""
    with pytest.raises(InvalidInput) as refused:
        digits([(EXAMPLE / "samples" / "one.png").read_bytes(), b"one"])
    assert refused.value.row == 1
