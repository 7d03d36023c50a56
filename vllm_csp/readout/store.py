"""Holds the mask query of every sampled token until the API process asks for its masks.

A mask query belongs to the row that *predicted* `[SEG]`, and only the API process knows which
tokens were sampled. So every sampling row's query is kept (out_dim values, after `text_hidden_fcs`)
on the device, and nothing is synchronised until masks are wanted.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vllm_csp.timeline import Interval


@dataclass
class Step:
    """The sampling rows of one engine step.

    queries: [rows, out_dim]. fed_tokens: the token each row was fed, as a list or a device tensor.
    """

    queries: torch.Tensor
    fed_tokens: Sequence[int] | torch.Tensor


@dataclass
class Stream:
    """One sequence of a request (n > 1 gives several with the same key).

    rows[i] = (step, row) of the query of output token i. owner: what stays the same while its
    request leaves and re-enters the batch, if anything. resumed: it has come back to the batch and
    has no row since. kept_tokens: per stage the image tokens
    [budget] it ran on, when the engine runs in stages. intervals: its prefill, if recorded.
    """

    key: str
    image_key: str
    owner: object = None
    rows: list[tuple[Step, int]] = field(default_factory=list)
    touched: float = 0.0
    resumed: bool = False
    kept_tokens: list[torch.Tensor] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)

    def queries(self, indexes: Sequence[int]) -> torch.Tensor:
        """Queries [len(indexes), out_dim] of the output tokens at `indexes`."""
        rows = [self.rows[index] for index in indexes]
        return torch.stack([step.queries[row] for step, row in rows])

    def truncate(self, length: int) -> None:
        """Keep the rows of the first `length` output tokens."""
        del self.rows[length:]

    def fed_tokens(self) -> list[int]:
        """The token each row was fed; the first is the prompt's last."""
        return [int(step.fed_tokens[row]) for step, row in self.rows]


class ReadoutStore:
    """Streams by request key.

    `on_open(image_key)` and `on_close(image_key)` are called for every stream held, so that the
    image's embedding is kept as long. Streams are dropped when released, `max_age` seconds after
    their last token, or (oldest first) beyond `max_streams`.
    """

    def __init__(
        self,
        on_open: Callable[[str], None],
        on_close: Callable[[str], None],
        max_streams: int = 8192,
        max_age: float = 600.0,
    ) -> None:
        self._on_open = on_open
        self._on_close = on_close
        self._max_streams = max_streams
        self._max_age = max_age
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._by_key: dict[str, list[Stream]] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def open(
        self, key: str, image_key: str, num_output_tokens: int = 0, owner: object = None
    ) -> Stream | None:
        """A stream for a sequence that enters the batch.

        A sequence that comes back goes on with its own stream. None if it has output whose rows are
        gone: rows from here on would stand for other tokens than theirs.
        """
        self._expire()
        streams = self._by_key.get(key, [])
        for stream in streams:
            if owner is not None and stream.owner is owner:
                return stream
        if num_output_tokens:
            return _taken_up(streams, num_output_tokens, owner)
        stream = Stream(key, image_key, owner, touched=time.monotonic())
        self._streams[id(stream)] = stream
        self._by_key.setdefault(key, []).append(stream)
        self._on_open(image_key)
        return stream

    def record(
        self,
        streams: Sequence[Stream],
        queries: torch.Tensor,
        fed_tokens: Sequence[int] | torch.Tensor,
    ) -> None:
        """Add one row per stream: queries [streams, out_dim], fed_tokens [streams]."""
        step = Step(queries, fed_tokens)
        now = time.monotonic()
        for row, stream in enumerate(streams):
            stream.rows.append((step, row))
            stream.touched, stream.resumed = now, False
            if id(stream) in self._streams:
                self._streams.move_to_end(id(stream))

    def find(
        self, key: str, token_ids: Sequence[int], last: int, *, of_several: bool
    ) -> Stream | None:
        """The stream of a request whose output starts with `token_ids`, up to index `last`.

        of_several: the request has several choices (n > 1), of which other engines may hold some.
        The tokens tell them apart; equal ones are interchangeable. None if the request is unknown
        or its rows are gone.
        """
        streams = [one for one in self._by_key.get(key, ()) if len(one.rows) > last]
        if of_several:
            streams = [
                one for one in streams if one.fed_tokens()[1 : last + 1] == list(token_ids[:last])
            ]
        return streams[0] if streams else None

    def release(self, key: str) -> None:
        """Forget a request; unknown keys are fine."""
        for stream in self._by_key.pop(key, ()):
            self._streams.pop(id(stream), None)
            self._on_close(stream.image_key)

    def _expire(self) -> None:
        """Drop what nobody came for; the order of `_streams` is by last token."""
        horizon = time.monotonic() - self._max_age
        while self._streams:
            number, oldest = next(iter(self._streams.items()))
            if len(self._streams) < self._max_streams:
                if oldest.touched > horizon:
                    return
                # A choice that has ended waits for those of its request that go on.
                oldest.touched = max(one.touched for one in self._by_key[oldest.key])
                if oldest.touched > horizon:
                    self._streams.move_to_end(number)
                    continue
            self.release(oldest.key)


def _taken_up(streams: Sequence[Stream], num_output_tokens: int, owner: object) -> Stream | None:
    """Of a request's streams that of a sequence which comes back with another `owner`, if any.

    With several choices those with as many rows, in the order in which they came first; each once,
    unless it has left again without a row. A sequence alone may have a row more, of a token that
    was taken back.
    """
    if len(streams) == 1:
        fitting = [one for one in streams if len(one.rows) >= num_output_tokens]
    else:
        fitting = [one for one in streams if len(one.rows) == num_output_tokens]
    if not fitting:
        return None
    chosen = min(fitting, key=lambda one: one.resumed)
    chosen.owner, chosen.resumed = owner, True
    return chosen
