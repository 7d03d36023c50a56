"""A stream of its own for SAM's image encoder, so that it computes beside the language model.

A mask needs the image only once its answer has written `[SEG]`. Until then the encoder's arithmetic
may run beside decoding steps, which wait for memory more than they compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor


class Event(Protocol):
    """A place in a stream; `torch.cuda.Event`."""

    def wait(self) -> None:
        """Have what the current stream is given from here on begin after it; the host goes on."""


class EncodeStream:
    """Where images are encoded: beside the current stream, or, without `streams`, on it."""

    def __init__(self, streams: Any = None) -> None:
        """`streams`: `torch.cuda`, or what has its `Stream`, `stream` and `current_stream`."""
        self._streams = streams
        self.own = None if streams is None else streams.Stream()

    @contextmanager
    def beside(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Run what is launched within after what was launched before, and beside what follows.

        `inputs` keep their memory until they have been read. What is made within may be freed at
        any time by who has waited for `event`: its memory goes to this stream again, where the
        next entry here is behind all that read it.
        """
        if self.own is None:
            yield
            return
        self.own.wait_stream(self._streams.current_stream())
        for tensor in inputs:
            tensor.record_stream(self.own)
        with self._streams.stream(self.own):
            yield

    def event(self) -> Event | None:
        """The end of what was launched `beside` so far; None if that is in its order anyway."""
        if self.own is None:
            return None
        end: Event = self.own.record_event()
        return end
