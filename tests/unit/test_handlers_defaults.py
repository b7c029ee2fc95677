"""The default handlers image_segmenter, object_detector and densenet_handler, on models of a few numbers."""

import io

import pytest
import torch
from PIL import Image

from servegrpc.errors import InvalidInput
from servegrpc.handlers.densenet_handler import DenseNetHandler
from servegrpc.handlers.image_segmenter import ImageSegmenter
from servegrpc.handlers.object_detector import ObjectDetector
from servegrpc.worker.context import Context

SEGMENTER = """
import torch

class Halves(torch.nn.Module):
    def forward(self, x):
        bright = x.mean(dim=1)
        return {"out": torch.stack((-bright, bright), dim=1)}
"""
DETECTOR = """
import torch

class Frames(torch.nn.Module):
    calls = 0

    def forward(self, pictures):
        Frames.calls += 1
        height, width = pictures.shape[2:]
        box = torch.tensor([[0.0, 0.0, width, height], [1.0, 1.0, 2.0, 2.0]])
        scores = [torch.stack((one.mean(), torch.tensor(0.4))) for one in pictures]
        return [{"boxes": box, "labels": torch.tensor([1, 2]), "scores": score} for score in scores]
"""
DOUBLER = """
import torch

class Twice(torch.nn.Module):
    def forward(self, x):
        return x * 2
"""


def start(handler, folder, model, config=None):
    name = f"{type(handler).__name__.lower()}_net.py"
    (folder / name).write_text(model)
    context = Context(
        model_name="net",
        model_dir=str(folder),
        manifest={"model": {"modelFile": name}},
        batch_size=4,
        gpu=None,
        model_yaml_config=config or {},
    )
    handler.initialize(context)
    context.begin_batch(list("abcd"), [{}] * 4)
    return handler, context


def gray(level, size=(256, 256)):
    file = io.BytesIO()
    Image.new("L", size, level).save(file, "PNG")
    return file.getvalue()


def saved(tensor):
    file = io.BytesIO()
    torch.save(tensor, file)
    return file.getvalue()


@pytest.mark.slow
def test_segmenter_answers_class_and_probability_of_each_pixel(tmp_path):
    """A white and a black picture → 224 x 224 pairs each, of the class and its probability."""
    handler, context = start(ImageSegmenter(), tmp_path, SEGMENTER)
    white, black = handler.handle([{"data": gray(255)}, {"data": gray(0)}], context)
    assert (len(white), len(white[0]), len(white[0][0])) == (224, 224, 2)
    assert (white[100][100][0], black[100][100][0]) == (1.0, 0.0)
    assert 0.5 < white[100][100][1] < 1


def test_segmenter_takes_plain_logits():
    """A model's output that is no dict → the same pairs."""
    logits = torch.tensor([[[[0.0]], [[3.0]]]])
    [[[[number, probability]]]] = ImageSegmenter().postprocess(logits)
    assert (number, probability) == (1.0, pytest.approx(0.9526, abs=1e-4))


def test_detector_answers_boxes_by_label(tmp_path):
    """Bright and dark pictures → what scores at least the threshold, as {label: box, score}."""
    (tmp_path / "index_to_name.json").write_text('{"1": "frame"}')
    handler, context = start(ObjectDetector(), tmp_path, DETECTOR)
    bright, dark = handler.handle([{"data": gray(255, (6, 4))}, {"data": gray(0, (6, 4))}], context)
    assert bright == [{"frame": [0.0, 0.0, 6.0, 4.0], "score": 1.0}]
    assert dark == []


def test_detector_threshold_is_the_class_attribute(tmp_path):
    """A subclass with a lower threshold → the less sure things too, unnamed classes by number."""

    class Eager(ObjectDetector):
        threshold = 0.3

    handler, context = start(Eager(), tmp_path, DETECTOR)
    [things] = handler.handle([{"data": gray(255, (6, 4))}], context)
    assert [set(thing) for thing in things] == [{"1", "score"}, {"2", "score"}]


def test_detector_takes_pictures_of_several_sizes(tmp_path):
    """Three pictures of two sizes → results in order, one call of the model for each size."""
    handler, context = start(ObjectDetector(), tmp_path, DETECTOR)
    results = handler.handle([{"data": gray(255, size)} for size in ((6, 4), (8, 4), (6, 4))], context)
    assert [thing["1"][2] for [thing] in results] == [6.0, 8.0, 6.0]
    assert type(handler.model).calls == 2


@pytest.mark.parametrize("wrapped", [saved, lambda tensor: tensor, lambda tensor: tensor.tolist()], ids=["saved", "tensor", "list"])
def test_densenet_answers_tensors(tmp_path, wrapped):
    """Tensors in any wrapping → an output tensor [1, …] for each."""
    handler, context = start(DenseNetHandler(), tmp_path, DOUBLER)
    results = handler.handle([{"data": wrapped(torch.ones(3))}, {"body": wrapped(torch.zeros(3))}], context)
    assert [result.tolist() for result in results] == [[[2.0] * 3], [[0.0] * 3]]


@pytest.mark.parametrize("value", [b"tensor", b"", saved(Image.Image)], ids=["text", "nothing", "pickle"])
def test_densenet_refuses_other_bytes(tmp_path, value):
    """Bytes that are no tensor, or pickle → InvalidInput for that row."""
    handler, context = start(DenseNetHandler(), tmp_path, DOUBLER)
    with pytest.raises(InvalidInput, match=r"no tensor by torch\.save") as refused:
        handler.handle([{"data": torch.ones(3)}, {"data": value}], context)
    assert refused.value.row == 1
