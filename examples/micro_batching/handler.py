"""Decodes pictures on two threads while the model works on those that are ready."""

from model import COLOURS

from servegrpc.handlers.images import to_rgb, to_tensor
from servegrpc.handlers.micro_batching import MicroBatching
from servegrpc.handlers.vision_handler import VisionHandler


class ColourHandler(VisionHandler):
    """Answers each picture with the name of its colour."""

    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self)

    def initialize(self, context):
        """Load the model, and take the sizes from model-config.yaml."""
        super().initialize(context)
        settings = self.model_yaml_config["micro_batching"]
        self.handle.micro_batch_size = settings["micro_batch_size"]
        self.handle.parallelism = settings["parallelism"]

    def image_processing(self, image):
        """Return the picture in 64 x 64: the slow step, which is why it has two threads."""
        return to_tensor(to_rgb(image).resize((64, 64)))

    def postprocess(self, data):
        """Return a name for each row of logits."""
        return [list(COLOURS)[best] for best in data.argmax(dim=1).tolist()]
