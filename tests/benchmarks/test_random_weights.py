"""Weights made up for a hollow checkpoint: servers and baselines answer, with masks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks import checkpoint, random_weights
from benchmarks.baselines import ReferenceLoop
from benchmarks.calls import calls, opened
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.e2e import parse
from benchmarks.served import measure_server
from vllm_csp.models.tokenizer import LisaTokenizer

ANSWER = "Sure, it is [SEG] ."
SIZE = Size(layers=2, hidden=128)


@pytest.fixture
def hollow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint, "CACHE", tmp_path)
    return write_checkpoint(SIZE, hollow=True)


@pytest.mark.slow
def test_a_server_and_a_baseline_answer_with_masks(hollow: Path) -> None:
    options = ["--hollow", f"--layers={SIZE.layers}", f"--hidden={SIZE.hidden}"]
    options += ["--concurrency", "1", "--per-image", "1", "--requests", "1", "--dtype", "float32"]
    served = measure_server("dense", parse([*options, "--kv-bytes", "64M", "--seats", "4"]))
    assert served["rows"][0]["rate"] > 0
    assert [len(masks) for masks in served["masks"]] == [1] * len(served["masks"]) != []
    loop = ReferenceLoop(hollow, "float32", hollow=True)
    [reply] = loop.ask(opened(calls(1, 1, 0)), max_tokens=10)
    assert LisaTokenizer.from_pretrained(hollow).decode(reply.token_ids).startswith(ANSWER)
    assert len(reply.masks) == 1


def test_the_same_name_has_the_same_numbers() -> None:
    one, other, longer = torch.empty(4, 8), torch.empty(4, 8), torch.empty(4, 4000)
    random_weights.fill("a.weight", one)
    random_weights.fill("a.weight", other)
    assert torch.equal(one, other)
    random_weights.fill("b.weight", other)
    assert not torch.equal(one, other)
    random_weights.fill("b.weight", longer)
    assert torch.allclose(longer.norm(dim=1), torch.ones(4), atol=0.1)
    scale, shift = torch.empty(4), torch.empty(4)
    random_weights.fill("norm.weight", scale)
    random_weights.fill("norm.bias", shift)
    assert scale.tolist() == [1.0] * 4 and shift.tolist() == [0.0] * 4


@pytest.mark.parametrize(("named", "others"), [("", "vllm_csp"), ("vllm_csp,one", "vllm_csp,one")])
def test_plugins_that_are_named_stay(
    monkeypatch: pytest.MonkeyPatch, named: str, others: str
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", named)
    found = random_weights.loading()
    assert found["VLLM_PLUGINS"] == f"{others},{random_weights.PLUGIN}"
    first = Path(found["PYTHONPATH"].split(os.pathsep)[0])
    [entries] = first.glob("*.dist-info/entry_points.txt")
    assert f"{random_weights.PLUGIN} = benchmarks.random_weights:register" in entries.read_text()
