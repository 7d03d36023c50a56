"""Llama whose layers run in stages, each on the image tokens it keeps.

The layers are vLLM's; what is ours lies between them: gathering a stage's rows, writing them back,
and scoring tokens by one row's attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from vllm.compilation.decorators import ignore_torch_compile
from vllm.config import CacheConfig, VllmConfig, get_current_vllm_config
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.models.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
)
from vllm.model_executor.models.utils import extract_layer_index

from vllm_csp.kv.attention import StagedAttention
from vllm_csp.models.stage_runner import StageRunner
from vllm_csp.schedules import staged_schedule
from vllm_csp.tokens.plan import ScoreRows, on_device
from vllm_csp.tokens.selectors import ScoreSpec, readout_attention_scores


class RowScorer:
    """Scores image tokens by one row's attention, in the layers it is attached to.

    `scores` [P, image tokens of the stage] is the sum over those layers.
    """

    def __init__(self, rows: ScoreRows, spec: ScoreSpec, device: torch.device) -> None:
        self.spec = spec
        self.scores: Tensor | None = None
        self._query = on_device(rows.query, device)
        self._keys = on_device(rows.keys, device)
        self._key_mask = on_device(rows.key_mask, device)
        self._image_columns = on_device(rows.image_columns, device)

    def __call__(self, query: Tensor, key: Tensor, scale: float) -> None:
        """query [T, H, d], key [T, Hkv, d] of this rank's heads."""
        scores = readout_attention_scores(
            query[self._query],
            key[self._keys],
            self._key_mask,
            self._image_columns,
            scale=scale,
            softmax=self.spec.softmax,
        )
        if (ranks := get_tensor_model_parallel_world_size()) > 1:
            scores = tensor_model_parallel_all_reduce(scores) / ranks
        self.scores = scores if self.scores is None else self.scores + scores


class StagedLlamaAttention(LlamaAttention):
    """Llama attention whose KV cache belongs to its layer's stage, with an optional scorer."""

    attn: StagedAttention
    scorer: RowScorer | None = None

    def __init__(
        self,
        config: LlamaConfig,
        *,
        cache_config: CacheConfig | None = None,
        quant_config: QuantizationConfig | None = None,
        prefix: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            config=config,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=prefix,
            **kwargs,
        )
        vllm_config = get_current_vllm_config()
        schedule = staged_schedule(vllm_config)
        assert schedule is not None
        # The plain layer has registered itself under the name that ours takes over.
        del vllm_config.compilation_config.static_forward_context[self.attn.layer_name]
        self.attn = StagedAttention(
            num_heads=self.num_heads,
            head_size=self.head_dim,
            scale=self.scaling,
            num_kv_heads=self.num_kv_heads,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=f"{prefix}.attn",
            stage=schedule.stage_of(extract_layer_index(prefix)),
        )

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """vLLM's forward; a scorer sees queries and keys before or after the rotary embedding."""
        qkv, _ = self.qkv_proj(hidden_states)
        query, key, value = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        if self.scorer is not None and not self.scorer.spec.rope:
            self._score(query, key)
        query, key = self.rotary_emb(positions, query, key)
        if self.scorer is not None and self.scorer.spec.rope:
            self._score(query, key)
        output, _ = self.o_proj(self.attn(query, key, value))
        return output

    def _score(self, query: Tensor, key: Tensor) -> None:
        assert self.scorer is not None
        self.scorer(
            query.view(-1, self.num_heads, self.head_dim),
            key.view(-1, self.num_kv_heads, self.head_dim),
            self.scaling,
        )


class StagedLlamaDecoderLayer(LlamaDecoderLayer):
    """vLLM's decoder layer around our attention."""

    def __init__(
        self, vllm_config: VllmConfig, prefix: str = "", config: LlamaConfig | None = None
    ) -> None:
        super().__init__(vllm_config, prefix, config, attn_layer_type=StagedLlamaAttention)


@ignore_torch_compile
class StagedLlamaModel(LlamaModel):
    """The decoder. `runner` (set by the owning model) decides what each stage runs on."""

    runner: StageRunner

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=StagedLlamaDecoderLayer)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [tokens, hidden] after the final norm.

        Rows that the last stage leaves out come back as zeros: nothing is sampled from them.
        """
        embeds = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        context = get_forward_context()
        if context.attn_metadata is None:
            # A profiling run, without batch or KV cache.
            return super().forward(input_ids, positions, None, embeds)
        slots = self.runner.tracker.slot_mappings
        context.slot_mapping = {**context.slot_mapping, **slots}
        return self.runner.run(self.layers, self.norm, positions, embeds)


class StagedLlamaForCausalLM(LlamaForCausalLM):
    """vLLM's Llama with the staged decoder in place of its own."""

    def _init_model(
        self,
        vllm_config: VllmConfig,
        prefix: str = "",
        layer_type: type[nn.Module] | None = None,
    ) -> StagedLlamaModel:
        return StagedLlamaModel(vllm_config=vllm_config, prefix=prefix)
