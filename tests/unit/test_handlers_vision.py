"""VisionHandler and ImageClassifier on pictures of every kind, and subclassed as TorchServe's handlers do."""

import base64
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from servegrpc.handlers import ImageClassifier, InvalidInput, VisionHandler
from servegrpc.handlers.images import decode, imagenet_tensor
from servegrpc.worker.context import Context

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vision"
MODEL_FILE = """
import torch

class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))
"""


def picture(name: str) -> bytes:
    return (FIXTURES / f"{name}.png").read_bytes()


def start(handler, folder, **options):
    (folder / "means_net.py").write_text(MODEL_FILE)
    context = Context(
        model_name="means",
        model_dir=str(folder),
        manifest={"model": {"modelFile": "means_net.py"}},
        batch_size=8,
        gpu=None,
        model_yaml_config={},
        **options,
    )
    handler.initialize(context)
    context.begin_batch([str(index) for index in range(8)], [{}] * 8)
    return handler, context


class MyHandler(ImageClassifier):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def initialize(self, context):
        super().initialize(context)
        self.set_max_result_classes(2)

    def preprocess(self, data):
        self.seen += len(data)
        return super().preprocess(data)


def test_every_kind_of_picture_is_classified(tmp_path):
    """Grayscale, RGBA, palette and bilevel pictures in one batch → one result each: labels by probability, best first."""
    handler, context = start(ImageClassifier(), tmp_path)
    names = ["landscape", "grayscale", "rgba", "palette", "bilevel"]
    results = handler.handle([{"data": picture(name)} for name in names], context)
    for name, result in zip(names, results, strict=True):
        logits = imagenet_tensor(decode(picture(name))).mean(dim=(1, 2))
        expected = torch.softmax(logits, 0)
        assert result == {label: pytest.approx(expected[int(label)].item(), abs=1e-5) for label in "012"}
        assert list(result.values()) == sorted(result.values(), reverse=True)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: base64.b64encode(data).decode()])
def test_a_picture_comes_in_any_wrapping(tmp_path, kind):
    """bytes, bytearray, memoryview or base64 text → the same tensor."""
    handler, _ = start(ImageClassifier(), tmp_path)
    batch = handler.preprocess([{"body": kind(picture("tiny"))}])
    assert torch.equal(batch[0], imagenet_tensor(decode(picture("tiny"))))


def test_finished_tensors_skip_the_processing(tmp_path):
    """A tensor and a list → the batch, as float32."""
    handler, _ = start(ImageClassifier(), tmp_path)
    batch = handler.preprocess([{"data": torch.ones(1, 2, 2, dtype=torch.float64)}, {"data": [[[0, 1], [2, 3]]]}])
    assert batch.dtype == torch.float32
    assert batch.tolist() == [[[[1, 1], [1, 1]]], [[[0, 1], [2, 3]]]]


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"data": b"no picture"}, "inputs.data", "cannot be decoded: it is no known picture format"),
        ({"body": b""}, "inputs.body", "cannot be decoded"),
        ({"data": "%%%"}, "inputs.data", "no known picture format"),
        ({"data": "abc"}, "inputs.data", "no base64"),
        ({"data": "é"}, "inputs.data", "no base64"),
        ({"data": {"b64": ""}}, "inputs.data", "of type dict"),
        ({"picture": b""}, "inputs", 'inputs sent: "picture"'),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, field, message):
    """One row of the batch is no picture → InvalidInput with its index and field."""
    handler, context = start(ImageClassifier(), tmp_path)
    with pytest.raises(InvalidInput, match=message) as refused:
        handler.handle([{"data": picture("tiny")}, row], context)
    assert (refused.value.row, refused.value.field) == (1, field)


def test_subclass_as_for_torchserve(tmp_path):
    """A subclass that overrides __init__, initialize and preprocess → its settings count."""
    handler, context = start(MyHandler(), tmp_path)
    assert [len(result) for result in handler.handle([{"data": picture("tiny")}], context)] == [2]
    assert (handler.seen, handler.get_max_result_classes()) == (1, 2)


def test_image_processing_can_be_replaced(tmp_path):
    """`image_processing` set to another callable on the class → used, with the undisturbed picture."""

    class Sizes:
        def __call__(self, image: Image.Image) -> torch.Tensor:
            return torch.tensor([image.width, image.height])

    class SizeHandler(VisionHandler):
        image_processing = Sizes()

    handler, _ = start(SizeHandler(), tmp_path)
    assert handler.preprocess([{"data": picture("tiny")}]).tolist() == [[10, 7]]


def test_plain_vision_handler_gives_pixels(tmp_path):
    """VisionHandler itself → pixels scaled to 0..1, in the picture's own channels."""
    handler, _ = start(VisionHandler(), tmp_path)
    assert handler.preprocess([{"data": picture("rgba")}]).shape == (1, 4, 48, 66)


def test_pixel_limit_is_lifted_when_configured(tmp_path, monkeypatch):
    """limit_max_image_pixels is off → Pillow's limit is gone; on → untouched."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    start(ImageClassifier(), tmp_path)
    assert Image.MAX_IMAGE_PIXELS == 100
    start(ImageClassifier(), tmp_path, limit_max_image_pixels=False)
    assert Image.MAX_IMAGE_PIXELS is None


def test_picture_over_the_pixel_limit_is_refused(tmp_path, monkeypatch):
    """A picture of more than twice the limit → InvalidInput, not memory."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    handler, _ = start(ImageClassifier(), tmp_path)
    with pytest.raises(InvalidInput, match="exceeds limit"):
        handler.preprocess([{"data": picture("tiny")}])


def test_explanations_ask_for_captum(tmp_path, monkeypatch):
    """An explanation without captum → an error that says what to install."""
    monkeypatch.setitem(sys.modules, "captum.attr", None)  # an import of it then fails
    handler, _ = start(ImageClassifier(), tmp_path)
    with pytest.raises(RuntimeError, match="pip install captum"):
        handler.get_insights(torch.zeros(1, 3, 4, 4), None)


@pytest.mark.slow
def test_explanations(tmp_path):
    """A picture that asks for an explanation of class 1, beside one that does not → each pixel's share of that class, and the classes."""
    handler, context = start(ImageClassifier(), tmp_path)
    context.begin_batch(["a", "b"], [{"explain": "True"}, {}])
    pixels = torch.arange(48.0).reshape(3, 4, 4)
    explained, classified = handler.handle([{"data": pixels, "target": 1}, {"data": pixels}], context)
    expected = torch.zeros(3, 4, 4)
    expected[1] = pixels[1] / 16  # the model takes the mean of each colour
    torch.testing.assert_close(torch.tensor(explained), expected)
    assert list(classified) == ["2", "1", "0"]
