"""The recorder: rows seen by the model meet rows known to the logits processor."""

from __future__ import annotations

import pytest
import torch

from tests.readout.lookup import queries
from vllm_csp.readout.recorder import Recorder, recorder_of
from vllm_csp.readout.store import ReadoutStore


@pytest.fixture
def recorder() -> Recorder:
    store = ReadoutStore(lambda key: None, lambda key: None)
    return Recorder("an engine", lambda rows: rows * 2, store)


def test_a_stream_has_its_own_row(recorder: Recorder) -> None:
    stream = recorder.store.open("request", "image")
    recorder.see(torch.tensor([[1.0], [2.0], [3.0]]))
    recorder.record([stream], [1], 3, {1: 7})
    found = queries(recorder.store, "request", [100], [0])
    assert found is not None
    assert found.tolist() == [[4.0]]


@pytest.mark.parametrize("seen", [None, 2, 4])
def test_other_rows_than_the_models_are_refused(recorder: Recorder, seen: int | None) -> None:
    """A runner that samples from rows the model did not see would give wrong masks."""
    stream = recorder.store.open("request", "image")
    if seen is not None:
        recorder.see(torch.zeros(seen, 1))
    with pytest.raises(RuntimeError, match="rows"):
        recorder.record([stream], [0], 3, {0: 7})


def test_rows_are_used_once(recorder: Recorder) -> None:
    stream = recorder.store.open("request", "image")
    recorder.see(torch.zeros(1, 1))
    recorder.record([stream], [0], 1, {0: 7})
    with pytest.raises(RuntimeError, match="rows"):
        recorder.record([stream], [0], 1, {0: 8})


def test_engines_in_one_process_have_their_own(recorder: Recorder) -> None:
    other = Recorder("another engine", recorder._project, recorder.store)
    assert recorder_of("an engine") is recorder
    assert recorder_of("another engine") is other
