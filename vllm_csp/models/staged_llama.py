"""Llama whose layers run in stages, each on the image tokens it keeps.

The layers are vLLM's; what is ours lies between them: gathering a stage's rows, writing them back,
and scoring tokens by one row's attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from vllm.compilation.decorators import ignore_torch_compile
from vllm.config import CacheConfig, VllmConfig, get_current_vllm_config
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
from vllm_csp.models.row_scorer import RowScorer
from vllm_csp.models.seg_probe import SegProbe
from vllm_csp.models.stage_runner import StageRunner
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.schedules import staged_schedule

# Backends that write all keys and values they are given before attention, and read every request's
# from the cache. Others may attend to a prompt's own, as ROCm's AITER does.
READS_FROM_CACHE = frozenset({"CPU_ATTN", "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN"})


class StagedLlamaAttention(LlamaAttention):
    """Llama attention whose KV cache belongs to its layer's stage.

    For a call it may have scorers, [SEG] rows behind the batch's own, and rows whose keys and
    values go to further slots: those of requests that share them.
    """

    attn: StagedAttention
    scorers: Sequence[RowScorer] = ()
    probe: SegProbe | None = None
    copies: Tensor | None = None

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
        """vLLM's forward; scorers see queries and keys before or after the rotary embedding."""
        qkv, _ = self.qkv_proj(hidden_states)
        query, key, value = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        self._score(query, key, rope=False)
        query, key = self.rotary_emb(positions, query, key)
        self._score(query, key, rope=True)
        output, _ = self.o_proj(self._attend(query, key, value))
        return output

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.probe is None:
            return self.attn(query, *self._cached(key, value))
        rows = len(query) - self.probe.num_probes
        probed = self.probe.attend(
            query[rows:].view(-1, self.num_heads, self.head_dim),
            key.view(-1, self.num_kv_heads, self.head_dim),
            value.reshape(-1, self.num_kv_heads, self.head_dim),
            self.scaling,
        )
        kept = self._cached(key[:rows], value[:rows])
        return torch.cat((self.attn(query[:rows], *kept), probed))

    def _cached(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the KV cache: the stage's slot mapping has the copies behind the rows."""
        if self.copies is None:
            return key, value
        return torch.cat((key, key[self.copies])), torch.cat((value, value[self.copies]))

    def _score(self, query: Tensor, key: Tensor, *, rope: bool) -> None:
        for scorer in self.scorers:
            if scorer.spec.rope == rope:
                scorer(
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
        model = vllm_config.model_config
        self._seg_token_id = LisaTokenizer.from_pretrained(
            model.tokenizer,
            revision=model.tokenizer_revision,
            download_dir=vllm_config.load_config.download_dir,
        ).seg_token_id

    @property
    def caches_apart(self) -> bool:
        """Whether rows of an image may be shared on this platform's attention backend."""
        backends = (layer.self_attn.attn.attn_backend for layer in self.layers)
        return all(backend.get_name() in READS_FROM_CACHE for backend in backends)

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
        return self.runner.run(self.layers, self.norm, positions, embeds, self._embed_seg)

    def _embed_seg(self, count: int) -> Tensor:
        ids = torch.full((count,), self._seg_token_id, device=self.norm.weight.device)
        return self.embed_input_ids(ids)


class StagedLlamaForCausalLM(LlamaForCausalLM):
    """vLLM's Llama with the staged decoder in place of its own."""

    def _init_model(
        self,
        vllm_config: VllmConfig,
        prefix: str = "",
        layer_type: type[nn.Module] | None = None,
    ) -> StagedLlamaModel:
        return StagedLlamaModel(vllm_config=vllm_config, prefix=prefix)
