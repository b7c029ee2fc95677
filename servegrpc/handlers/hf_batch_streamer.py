"""Text of a Hugging Face model as it is generated, for each sequence of a batch. Needs transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class TextIteratorStreamerBatch:
    """A `streamer` for `model.generate`, which runs on a thread of its own; iterate over it for the new text of all sequences.

    Each step is a list with one text for each sequence, "" where there is nothing new yet. `timeout` is how many seconds a step may
    take; after that queue.Empty is raised. Further arguments go to the tokenizer's `decode`. A streamer may be used for one
    generation after another.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 1,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: object,
    ) -> None:
        from transformers import TextIteratorStreamer

        self.batch_size = batch_size
        self.streamers = [TextIteratorStreamer(tokenizer, skip_prompt, timeout, **decode_kwargs) for _ in range(batch_size)]

    def put(self, value: torch.Tensor) -> None:
        """Take the next tokens, [sequences], or the prompts, [sequences, tokens]; called by `generate`."""
        if value.shape[0] != self.batch_size:
            raise ValueError(f"The streamer is for {self.batch_size} sequences and got tokens of {value.shape[0]}; set batch_size.")
        for streamer, tokens in zip(self.streamers, value, strict=True):
            streamer.put(tokens.reshape(-1))  # type: ignore[no-untyped-call]  # transformers'

    def end(self) -> None:
        """End the streams; called by `generate`."""
        for streamer in self.streamers:
            streamer.end()  # type: ignore[no-untyped-call]  # transformers'

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        texts = [next(streamer, None) for streamer in self.streamers]  # they end together
        if None in texts:
            raise StopIteration
        return cast("list[str]", texts)
