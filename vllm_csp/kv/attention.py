"""Attention over the tokens a stage keeps, on whatever backend the platform has.

Only the metadata changes: compact lengths and slots. Positions, and with them the rotary embedding,
stay the original ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionCGSupport,
    CommonAttentionMetadata,
    subclass_attention_backend,
)
from vllm.v1.attention.selector import get_attn_backend
from vllm.v1.kv_cache_interface import KVCacheSpec

from vllm_csp.device_copy import on_device
from vllm_csp.kv.decode_buffers import DecodeBuffers
from vllm_csp.kv.spec import StageSpec
from vllm_csp.kv.tracker import BatchTracker, tracker_of
from vllm_csp.tokens.plan import StagePlan


@lru_cache
def staged_backend(base: type[AttentionBackend]) -> type[AttentionBackend]:
    """`base` with a metadata builder that works on the stage's compact rows."""

    class StageMetadataBuilder(base.get_builder_cls()):  # type: ignore[misc]
        supports_update_block_table = False

        def __init__(
            self,
            kv_cache_spec: StageSpec,
            layer_names: list[str],
            vllm_config: VllmConfig,
            device: torch.device,
        ) -> None:
            super().__init__(kv_cache_spec, layer_names, vllm_config, device)
            tracker = tracker_of(vllm_config.instance_id)
            assert tracker is not None, "staged layers without a tracker"
            self._tracker: BatchTracker = tracker
            self._stage: int = kv_cache_spec.stage
            self._decodes = DecodeBuffers(vllm_config.scheduler_config.max_num_seqs, device)

        @classmethod
        def get_cudagraph_support(
            cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec
        ) -> AttentionCGSupport:
            # Prefills gather other rows in every step; decoding has one row in every stage.
            most = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
            of_base = super().get_cudagraph_support(vllm_config, kv_cache_spec)
            return min(of_base, most, key=lambda support: support.value)

        def build(
            self,
            common_prefix_len: int,
            common_attn_metadata: CommonAttentionMetadata,
            fast_build: bool = False,
        ) -> Any:
            common = common_attn_metadata
            plan = self._tracker.plan(common.query_start_loc_cpu, _host_seq_lens(common))
            stage = plan.stages[self._stage]
            if plan.only_decodes:
                compact = self._decoding(common, stage)
            else:
                compact = _compact(common, stage, self.kv_cache_spec.block_size)
            for name in self.layer_names:
                self._tracker.slot_mappings[name] = compact.slot_mapping
            return super().build(0, compact, fast_build)

        def _decoding(
            self, common: CommonAttentionMetadata, stage: StagePlan
        ) -> CommonAttentionMetadata:
            """One row per request, as in the full batch, whose `query_start_loc` [R + 1] stays.

            With what pads a graph: lengths [R], slots [`num_actual_tokens`]. The full batch's bound
            on lengths stays, too: a graph is captured with the longest one.
            """
            lengths = stage.lengths(common.seq_lens.device)
            slots = stage.slot_mapping(common.block_table_tensor, self.kv_cache_spec.block_size)
            seq_lens, slot_mapping = self._decodes.hold(lengths, slots, common.num_actual_tokens)
            return common.replace(
                seq_lens=seq_lens,
                seq_lens_cpu_upper_bound=torch.from_numpy(stage.seq_lens),
                slot_mapping=slot_mapping,
                positions=None,
            )

    return subclass_attention_backend("Staged", base, StageMetadataBuilder)


def _host_seq_lens(common: CommonAttentionMetadata) -> torch.Tensor:
    """Exact without speculative decoding, which is refused."""
    bound = common.seq_lens_cpu_upper_bound
    assert bound is not None
    return bound[: common.num_reqs]


def _compact(
    common: CommonAttentionMetadata, stage: StagePlan, block_size: int
) -> CommonAttentionMetadata:
    device = common.seq_lens.device
    query_start_loc = torch.from_numpy(stage.query_start_loc)
    seq_lens = torch.from_numpy(stage.seq_lens)
    return common.replace(
        query_start_loc=on_device(stage.query_start_loc, device),
        query_start_loc_cpu=query_start_loc,
        seq_lens=stage.lengths(device),
        seq_lens_cpu_upper_bound=seq_lens,
        num_actual_tokens=stage.num_rows,
        max_query_len=stage.max_query_len,
        max_seq_len=stage.max_seq_len,
        slot_mapping=stage.slot_mapping(common.block_table_tensor, block_size),
        positions=None,
    )


class StagedAttention(Attention):
    """vLLM's attention layer with a KV cache spec of its stage."""

    def __init__(self, *args: Any, stage: int, head_size: int, **kwargs: Any) -> None:
        self.stage = stage
        cache_config = kwargs.get("cache_config")
        cache_dtype = "auto" if cache_config is None else cache_config.cache_dtype
        base = get_attn_backend(head_size, torch.get_default_dtype(), cache_dtype)
        super().__init__(*args, head_size=head_size, attn_backend=staged_backend(base), **kwargs)

    def get_kv_cache_spec(self, vllm_config: VllmConfig) -> KVCacheSpec:
        """The platform's full attention spec, marked with the stage."""
        spec = super().get_kv_cache_spec(vllm_config)
        return StageSpec(
            block_size=spec.block_size,
            num_kv_heads=spec.num_kv_heads,
            head_size=spec.head_size,
            head_size_v=spec.head_size_v,
            dtype=spec.dtype,
            kv_quant_mode=spec.kv_quant_mode,
            stage=self.stage,
        )
