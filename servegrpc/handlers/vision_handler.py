"""The base of handlers that take pictures."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image

from servegrpc.errors import InvalidInput
from servegrpc.handlers.base_handler import BaseHandler
from servegrpc.handlers.images import UndecodableImage, decode, to_tensor
from servegrpc.handlers.rows import Row, as_tensor, row_input, stack
from servegrpc.handlers.timing import timed

if TYPE_CHECKING:
    from captum.attr import IntegratedGradients

    from servegrpc.worker.context import Context


class VisionHandler(BaseHandler):
    """Turns pictures into a batch; subclasses set `image_processing`, any callable from a Pillow image to a tensor, and `postprocess`.

    torchvision's Compose works as `image_processing`; so does a method.
    """

    image_processing: Callable[[Image.Image], torch.Tensor] = staticmethod(to_tensor)

    def initialize(self, context: Context) -> None:
        """Load the model; lift Pillow's size limit if the server is configured so."""
        super().initialize(context)
        if not context.system_properties["limit_max_image_pixels"]:
            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: Sequence[Row]) -> torch.Tensor:
        """Return the batch as one tensor on the device.

        The input "data" or "body" of a row is a picture file (bytes, or base64 text), which goes through `image_processing`, or the
        finished tensor (or list of numbers), which is only made float32. InvalidInput names the row that is neither.
        """
        return stack([self._tensor(row, index) for index, row in enumerate(data)]).to(self.device)

    def get_insights(self, tensor_data: torch.Tensor, _: object, target: int = 0) -> list[object]:
        """Return how much each pixel speaks for class `target`: captum's integrated gradients, in 15 steps."""
        return cast("list[object]", self.ig.attribute(tensor_data, target=target, n_steps=15).tolist())

    @cached_property
    def ig(self) -> IntegratedGradients:
        """Captum's IntegratedGradients of the model, imported when it is first asked for."""
        try:
            from captum.attr import IntegratedGradients
        except ImportError as error:
            raise RuntimeError("Explanations need captum: pip install captum.") from error
        return IntegratedGradients(self.model)

    def _tensor(self, row: Row, index: int) -> torch.Tensor:
        name, value = row_input(row, index)
        if isinstance(value, str):
            value = _from_base64(name, value, index)
        if not isinstance(value, bytes | bytearray | memoryview):
            return as_tensor(name, value, index, dtype=torch.float32)
        try:
            image = decode(value)
        except UndecodableImage as error:
            raise InvalidInput(f'The picture in "{name}" cannot be decoded: {error}.', field=f"inputs.{name}", row=index) from error
        return self.image_processing(image)


def _from_base64(name: str, text: str, index: int) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f'The text in "{name}" is no base64; send the picture file\'s bytes.', field=f"inputs.{name}", row=index
        ) from error
