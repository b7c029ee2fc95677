"""The default handlers, and the classes to extend for a handler of one's own: TorchServe's names and behaviour, without torchvision.

Importing this package loads torch, and no part of the server.
"""

from servegrpc.errors import InvalidInput
from servegrpc.handlers.base_handler import BaseHandler
from servegrpc.handlers.image_classifier import ImageClassifier
from servegrpc.handlers.vision_handler import VisionHandler

__all__ = ["BaseHandler", "ImageClassifier", "InvalidInput", "VisionHandler"]
