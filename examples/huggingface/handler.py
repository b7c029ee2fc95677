"""A handler for a Hugging Face text classifier, as one is written for TorchServe: it runs there too, without a change."""

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from ts.torch_handler.base_handler import BaseHandler


class Sentiment(BaseHandler):
    """Answers each text with its label and how sure the model is."""

    def initialize(self, ctx):
        """Load model and tokenizer from the archive, which has the files that `save_pretrained` wrote."""
        properties = ctx.system_properties
        on_gpu = torch.cuda.is_available() and properties.get("gpu_id") is not None
        self.device = torch.device(f"cuda:{properties['gpu_id']}" if on_gpu else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(properties["model_dir"])
        self.model = AutoModelForSequenceClassification.from_pretrained(properties["model_dir"]).to(self.device).eval()
        self.max_length = ctx.model_yaml_config["handler"]["max_length"]
        self.initialized = True

    def preprocess(self, data):
        """Make one padded batch of the texts, which arrive as bytes or text, under "data" or "body"."""
        texts = [row.get("data") or row.get("body") for row in data]
        texts = [text.decode("utf-8") if isinstance(text, (bytes, bytearray)) else text for text in texts]
        return self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt").to(self.device)

    def inference(self, data, *args, **kwargs):
        """Return the probabilities of the labels, a row for each text."""
        with torch.inference_mode():
            return self.model(**data).logits.softmax(dim=1)

    def postprocess(self, data):
        """Return {"label", "probability"} for each row."""
        best = data.max(dim=1)
        names = self.model.config.id2label
        return [{"label": names[i], "probability": round(p, 4)} for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
