"""From an answer's tokens to what the engine is asked for, and from its reply to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_csp.masks import MaskFormat, encode_mask, unpack_mask

FORCED_TEXT = "[SEG]."
"""The answer of mode "force"."""


def seg_indexes(
    token_ids: Sequence[int], seg_token_id: int, max_masks: int, *, forced: bool
) -> list[int]:
    """Which output tokens want a mask: the first `max_masks` [SEG]s, or the only one of a forced
    answer.
    """
    if forced:
        return [0]
    return [i for i, token in enumerate(token_ids) if token == seg_token_id][:max_masks]


def failure(packed: Mapping[str, Any]) -> str | None:
    """Why a worker's result has no masks, if so."""
    if "missing" in packed:
        return f"the engine lost the {packed['missing']} before its masks were made"
    if "failed" in packed:
        return f"the masks could not be made ({packed['failed']}); the engine's log says more"
    return None


def json_masks(packed: Mapping[str, Any], mask_format: MaskFormat) -> list[dict[str, Any]]:
    """JSON objects (see `segment.response.Mask`) of a worker's packed masks."""
    height, width = packed["size"]
    return [
        encode_mask(unpack_mask(bits, (height, width)), score, seg_index, mask_format)
        for seg_index, (bits, score) in enumerate(
            zip(packed["masks"], packed["scores"], strict=True)
        )
    ]
