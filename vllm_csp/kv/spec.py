"""KV cache of one stage: its own group of layers, its own block tables, its own lengths."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.core.single_type_kv_cache_manager import (
    FullAttentionManager,
    register_all_kvcache_specs,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry


@dataclass(frozen=True, kw_only=True)
class StageSpec(FullAttentionSpec):
    """Full attention over the tokens that stage number `stage` keeps.

    Layers of different stages must not share a group: `merge` asserts, because vLLM's grouping
    takes any other outcome for "they may".
    """

    stage: int = 0

    @classmethod
    def merge(cls, specs: list[Self]) -> Self:
        """The common spec of layers of one stage."""
        assert all(spec == specs[0] for spec in specs[1:]), "stages differ"
        return copy.deepcopy(specs[0])

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, KVCacheSpec]) -> bool:
        """Whether all layers belong to this stage."""
        return all(spec == self for spec in kv_cache_specs.values())


class StageManager(FullAttentionManager):
    """Gives a request slots for the tokens that the stage keeps.

    Counts in vLLM are logical tokens; `drop` says how many of a request's tokens have no slot here.
    They are image tokens, which precede everything that is ever counted without them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dropped: dict[str, int] = {}

    def drop(self, request_id: str, num_tokens: int) -> None:
        """Count `num_tokens` fewer slots for a request from now on, also after preemption."""
        self._dropped[request_id] = num_tokens

    def forget(self, request_id: str) -> None:
        """The request is gone for good."""
        self._dropped.pop(request_id, None)

    def num_slots(self, request_id: str, num_tokens: int) -> int:
        """Slots for the first `num_tokens` logical tokens (prompt and image included)."""
        return max(0, num_tokens - self._dropped.get(request_id, 0))

    def get_num_blocks_to_allocate(
        self, request_id: str, num_tokens: int, *args: Any, **kwargs: Any
    ) -> int:
        """Blocks a request still needs for its first `num_tokens` tokens."""
        slots = self.num_slots(request_id, num_tokens)
        blocks: int = super().get_num_blocks_to_allocate(request_id, slots, *args, **kwargs)
        return blocks

    def allocate_new_blocks(
        self, request_id: str, num_tokens: int, num_tokens_main_model: int
    ) -> list[KVCacheBlock]:
        """Allocate them."""
        slots = self.num_slots(request_id, num_tokens)
        blocks: list[KVCacheBlock] = super().allocate_new_blocks(
            request_id, slots, num_tokens_main_model
        )
        return blocks


def register_stage_spec() -> None:
    """Make the spec known to vLLM, in every process; idempotent.

    vLLM registers its own specs only while none is registered, so they go first.
    """
    register_all_kvcache_specs(None)
    KVCacheSpecRegistry.register(StageSpec, manager_class=StageManager)
