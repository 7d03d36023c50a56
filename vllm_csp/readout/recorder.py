"""Connects the model, which sees hidden states, with the logits processor, which sees requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch

from vllm_csp.device_copy import on_device
from vllm_csp.readout.store import ReadoutStore, Stream
from vllm_csp.timeline import Interval

# One engine per process is the rule; tests may hold several.
_recorders: WeakValueDictionary[str, Recorder] = WeakValueDictionary()


class Recorder:
    """Turns sampling rows into mask queries.

    The model stores each step's sampling rows with `see`; `record` picks the rows of segmentation
    requests and runs `project` ([rows, hidden] -> [rows, out_dim]) on them.
    """

    def __init__(
        self,
        instance_id: str,
        project: Callable[[torch.Tensor], torch.Tensor],
        store: ReadoutStore,
    ) -> None:
        self.store = store
        self._project = project
        self._hidden: torch.Tensor | None = None
        # Per stage, what batch row i's image kept in this step; set when the engine runs in stages.
        self.kept_tokens: Callable[[int], list[torch.Tensor]] = lambda row: []
        # What the last forward pass did when, if that is recorded.
        self.intervals: Callable[[], list[Interval]] = list
        _recorders[instance_id] = self

    def see(self, hidden: torch.Tensor) -> None:
        """Remember the rows [rows, hidden] that go into `lm_head` in this step."""
        self._hidden = hidden

    def record(
        self,
        streams: Sequence[Stream],
        rows: list[int],
        num_rows: int,
        fed_tokens: Sequence[int] | torch.Tensor,
    ) -> None:
        """Keep the queries of `rows` of the rows just seen.

        Raises `RuntimeError` if the runner sampled from other rows than the model saw.
        """
        hidden, self._hidden = self._hidden, None
        if hidden is None or hidden.shape[0] != num_rows:
            raise RuntimeError(
                "the rows given to the logits processor are not those given to compute_logits"
            )
        wanted = hidden if len(rows) == num_rows else picked(hidden, rows)
        self.store.record(streams, self._project(wanted), fed_tokens)


def picked(values: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """A copy of some rows; `values[rows]` would have the host wait for the device in every step."""
    return values.index_select(0, on_device(np.array(rows), values.device))


def recorder_of(instance_id: str) -> Recorder:
    """The recorder of the engine with this `VllmConfig.instance_id`."""
    return _recorders[instance_id]
