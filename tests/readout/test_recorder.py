"""The recorder: rows seen by the model meet rows known to the logits processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.readout.lookup import queries
from vllm_csp.readout.recorder import Recorder, picked, recorder_of
from vllm_csp.readout.store import ReadoutStore


@pytest.fixture
def recorder() -> Recorder:
    store = ReadoutStore(lambda key: None, lambda key: None)
    return Recorder("an engine", lambda rows: rows * 2, store)


def test_only_the_wanted_rows_are_projected_and_kept(recorder: Recorder) -> None:
    stream = recorder.store.open("request", "image")
    recorder.see(torch.tensor([[1.0], [2.0], [3.0]]))
    recorder.record([stream], [1], 3, [7])
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
        recorder.record([stream], [0], 3, [7])


def test_rows_are_used_once(recorder: Recorder) -> None:
    stream = recorder.store.open("request", "image")
    recorder.see(torch.zeros(1, 1))
    recorder.record([stream], [0], 1, [7])
    with pytest.raises(RuntimeError, match="rows"):
        recorder.record([stream], [0], 1, [8])


def test_engines_in_one_process_have_their_own(recorder: Recorder) -> None:
    other = Recorder("another engine", recorder._project, recorder.store)
    assert recorder_of("an engine") is recorder
    assert recorder_of("another engine") is other


class Operators(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_rows_are_picked_by_numbers_that_nobody_waits_for(recorder: Recorder) -> None:
    """By a list torch sends them itself, and waits."""
    stream = recorder.store.open("request", "image")
    recorder.see(torch.tensor([[1.0], [2.0]]))
    with Operators() as operators:
        recorder.record([stream], [1], 2, picked(torch.tensor([5, 6]), [1]))
    assert operators.names.count("aten.index_select.default") == 2
    assert "aten.index.Tensor" not in operators.names
    assert stream.fed_tokens() == [6] and stream.queries([0]).tolist() == [[4.0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_waits(recorder: Recorder) -> None:
    stream = recorder.store.open("request", "image")
    hidden, fed = torch.randn(3, 4, device="cuda"), torch.arange(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        recorder.see(hidden)
        recorder.record([stream], [2], 3, picked(fed, [2]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(stream.queries([0]), 2 * hidden[2:])


def test_what_was_picked_is_a_copy() -> None:
    """Of a runner's own buffer, which the next step may overwrite."""
    values = torch.tensor([1, 2])
    copy = picked(values, [0, 1])
    values.zero_()
    assert copy.tolist() == [1, 2]
