"""What a streaming handler may say, in place of a value, about one request of its batch.

A `handle` that yields gives one list per step, with one entry for each request of the batch, as a plain one returns one list. An entry is

* any value: the next message of that request's stream;
* `NOTHING`: no message this time;
* `Last(value)`: the last message, after which the stream ends well;
* `FINISHED`: the stream ends well, without a message;
* an exception: the stream ends with it.

When the handler returns, the streams that are left end well. A caller of a unary method gets the last value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Word(Enum):
    """The two entries without a value."""

    NOTHING = "nothing"
    FINISHED = "finished"


NOTHING, FINISHED = Word.NOTHING, Word.FINISHED


@dataclass(frozen=True, slots=True)
class Last:
    """The last value of a stream."""

    value: object
