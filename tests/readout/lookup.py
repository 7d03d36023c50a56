"""Looks queries up the way the worker does."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vllm_csp.readout.store import ReadoutStore


def queries(
    store: ReadoutStore, key: str, tokens: Sequence[int], indexes: Sequence[int]
) -> torch.Tensor | None:
    """Queries of the output tokens at `indexes` of the request that gave `tokens`."""
    several = len(store._by_key.get(key, ())) > 1
    stream = store.find(key, tokens, max(indexes), of_several=several)
    return None if stream is None else stream.queries(indexes)
