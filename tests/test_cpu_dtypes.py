"""`--dtype auto` does not end at a precision that the CPU has no instructions for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform

from vllm_csp import cpu_dtypes
from vllm_csp.cpu_dtypes import has_instructions, offer_fast_dtypes_only
from vllm_csp.mini import MINI

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="it is about CPUs")

HALVES = (torch.bfloat16, torch.float16)


def on_a_cpu_with(monkeypatch: pytest.MonkeyPatch, *halves: torch.dtype) -> None:
    """Instructions for these 16-bit precisions and no others."""
    monkeypatch.setattr(
        cpu_dtypes, "has_instructions", lambda dtype: dtype not in HALVES or dtype in halves
    )


def chosen(dtype: str, checkpoint: Path = MINI) -> torch.dtype:
    return EngineArgs(model=str(checkpoint), dtype=dtype).create_engine_config().model_config.dtype


@pytest.mark.parametrize(
    ("halves", "expected"),
    [((), torch.float32), (HALVES, torch.bfloat16), ((torch.bfloat16,), torch.bfloat16)],
)
def test_a_checkpoint_in_bf16_is_served_in_what_the_cpu_computes(
    monkeypatch: pytest.MonkeyPatch, halves: tuple[torch.dtype, ...], expected: torch.dtype
) -> None:
    on_a_cpu_with(monkeypatch, *halves)
    assert chosen("auto") == expected


@pytest.mark.parametrize("named", ["bfloat16", "float16", "float32"])
def test_a_precision_that_is_named_stays(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    on_a_cpu_with(monkeypatch)
    assert chosen(named) == getattr(torch, named)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, whatever an earlier test has made of vLLM's loggers."""
    logger = logging.getLogger(f"vllm.plugins.{cpu_dtypes.__name__}")
    noted: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: noted.append(record.getMessage())
    for name, value in {"disabled": False, "level": logging.WARNING, "handlers": [handler]}.items():
        monkeypatch.setattr(logger, name, value)
    monkeypatch.setattr(logger, "_cache", {})
    monkeypatch.setattr(logger.manager, "disable", logging.NOTSET)
    return noted


@pytest.mark.parametrize(
    ("named", "warned"), [("bfloat16", True), ("float16", False), ("float32", False)]
)
def test_a_slow_one_that_is_named_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str], named: str, warned: bool
) -> None:
    on_a_cpu_with(monkeypatch, torch.float16)
    chosen(named)
    assert [one for one in warnings if f"no instructions for {named}" in one] == warnings
    assert len(warnings) == warned
    assert all("--dtype float32" in one for one in warnings)


def test_offering_twice_changes_nothing() -> None:
    offer_fast_dtypes_only()
    offered = type(current_platform).supported_dtypes
    offer_fast_dtypes_only()
    assert type(current_platform).supported_dtypes is offered


@pytest.mark.parametrize("dtype", HALVES)
def test_what_has_instructions_is_not_slow(dtype: torch.dtype) -> None:
    """Asked of oneDNN: what it does not refuse is taken to be fast, and the reverse."""
    weight, rows = torch.ones(8, 8, dtype=dtype), torch.ones(4, 8, dtype=dtype)
    multiply = torch.ops.mkldnn._linear_pointwise
    if has_instructions(dtype):
        assert torch.equal(multiply(rows, weight, None, "none", [], ""), torch.full((4, 8), 8.0))
    else:
        with pytest.raises(RuntimeError, match="primitive"):
            multiply(rows, weight, None, "none", [], "")
