"""Connects the model, which sees hidden states, with the logits processor, which sees requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from weakref import WeakValueDictionary

import torch

from vllm_csp.readout.store import ReadoutStore, Stream
from vllm_csp.timeline import Interval

# One engine per process is the rule; tests may hold several.
_recorders: WeakValueDictionary[str, Recorder] = WeakValueDictionary()


class Recorder:
    """Turns sampling rows into mask queries.

    The model stores each step's sampling rows with `see`; `record` runs `project`
    ([rows, hidden] -> [rows, out_dim]) on them and notes whose they are.
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
        rows: Sequence[int],
        num_rows: int,
        fed_tokens: Mapping[int, int] | torch.Tensor,
    ) -> None:
        """Keep the queries of the rows just seen; those of `streams` are `rows`.

        All are projected: to pick rows by numbers of the host's, it would have to wait for the
        device. `fed_tokens`: of each of `rows`, or of all rows on the device.
        Raises `RuntimeError` if the runner sampled from other rows than the model saw.
        """
        hidden, self._hidden = self._hidden, None
        if hidden is None or hidden.shape[0] != num_rows:
            raise RuntimeError(
                "the rows given to the logits processor are not those given to compute_logits"
            )
        self.store.record(streams, rows, self._project(hidden), fed_tokens)


def recorder_of(instance_id: str) -> Recorder:
    """The recorder of the engine with this `VllmConfig.instance_id`."""
    return _recorders[instance_id]
