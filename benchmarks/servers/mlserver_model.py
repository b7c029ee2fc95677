"""The handler as an MLServer runtime; the handler's path comes from the environment, the rest from the settings files."""

from __future__ import annotations

import os

from handler import load
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput


class HandlerModel(MLModel):
    """Takes byte strings and returns byte strings; MLServer has joined the batch already."""

    async def load(self) -> bool:
        """Load the handler."""
        self.run = load(os.environ["HANDLER"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one batch."""
        replies = self.run([bytearray(row) for row in payload.inputs[0].data.root])
        parameters = Parameters(content_type="base64")
        output = ResponseOutput(name="reply", datatype="BYTES", shape=[len(replies), 1], data=replies, parameters=parameters)
        return InferenceResponse(model_name=self.name, outputs=[output])
