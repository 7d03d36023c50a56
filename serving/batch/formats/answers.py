"""The answers of a journal, as the output formats want them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_csp.serving.batch.journal import in_input_order
from vllm_csp.serving.batch.outcome import masks_of, succeeded


def answers(journal: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Lines that hold an answer, in the order of the input, with their masks."""
    for line in in_input_order(journal):
        if succeeded(line):
            yield line, masks_of(line["response"]["body"])
