"""Weights in every layout that checkpoints come in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.overlap import iou
from tests.oracle import recording
from vllm_csp.models.weights import Shapes, checkpoint_shapes, with_prefix
from vllm_csp.serving.segmenter import Segmenter

STATE = {
    "model.a.weight": torch.zeros(2, 3),
    "model.visual_model.b": torch.zeros(1, 4, 5),
    "c": torch.zeros(7, dtype=torch.bfloat16),
}
SHAPES: Shapes = {"model.a.weight": (2, 3), "model.visual_model.b": (1, 4, 5), "c": (7,)}


def halves() -> list[dict[str, torch.Tensor]]:
    names = list(STATE)
    return [{name: STATE[name] for name in part} for part in (names[:1], names[1:])]


def test_one_pickle(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert checkpoint_shapes(tmp_path) == SHAPES


def test_several_pickles_as_published(tmp_path: Path) -> None:
    for number, half in enumerate(halves(), 1):
        torch.save(half, tmp_path / f"pytorch_model-{number:05}-of-00002.bin")
    assert checkpoint_shapes(tmp_path) == SHAPES


def test_several_safetensors(tmp_path: Path) -> None:
    for number, half in enumerate(halves(), 1):
        save_file(half, tmp_path / f"model-{number:05}-of-00002.safetensors")
    assert checkpoint_shapes(tmp_path) == SHAPES


def test_safetensors_win_over_pickles(tmp_path: Path) -> None:
    """As they do when vLLM loads."""
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert checkpoint_shapes(tmp_path) == SHAPES


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"a": Path("b")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint_shapes(tmp_path)


def test_no_weights_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="safetensors"):
        checkpoint_shapes(tmp_path)


def test_a_prefix_is_cut_off() -> None:
    assert with_prefix(SHAPES, "model.visual_model.") == {"b": (1, 4, 5)}


def test_shapes_do_not_depend_on_the_layout(oracle: Path, safetensors_checkpoint: Path) -> None:
    assert checkpoint_shapes(safetensors_checkpoint) == checkpoint_shapes(oracle / "checkpoint")


def test_a_safetensors_checkpoint_answers_alike(
    engine_bf16: Segmenter, safetensors_checkpoint: Path
) -> None:
    """The bf16 engine of these tests runs on one; the fp32 engine and the server on a pickle."""
    assert engine_bf16.llm.llm_engine.model_config.model == str(safetensors_checkpoint)
    assert not list(safetensors_checkpoint.glob("*.bin"))
    one = recording("d02-answer")
    [answer] = engine_bf16.ask([one.question()])
    assert answer.token_ids == one.generated_ids("bf16")
    [mask] = answer.masks
    assert iou(mask, one.masks("bf16")[0]) >= 0.86
