"""The probe of a run."""

from __future__ import annotations

import torch

from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.training.packing import Packer
from vllm_csp.training.probe import probe
from vllm_csp.training.shape import MiniShape
from vllm_csp.training.student import Student


def test_an_untrained_student_finds_little(tokenizer: LisaTokenizer) -> None:
    torch.manual_seed(0)
    packer = Packer(tokenizer)
    shape = MiniShape(layers=2, vision_layers=1, word_head=(0, 1), target_heads=((1, 0),))
    student = Student(shape, tokenizer.vocab_size, packer.pieces)
    rows = {row["kind"]: row for row in probe(student, packer, range(3))}
    total = rows.pop("all")
    assert total["read_outs"] == sum(int(row["read_outs"]) for row in rows.values()) > 10
    assert all(0 <= float(total[name]) < 0.5 for name in ("grid", "place", "look"))
