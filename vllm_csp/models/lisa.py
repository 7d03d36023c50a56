"""LISA as a vLLM model: CLIP, projector and Llama for the text, SAM for the masks.

Source of the layout: LISA's `model/LISA.py`. Llama and CLIP are vLLM's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.clip import CLIPVisionModel
from vllm.model_executor.models.interfaces import MultiModalEmbeddings, SupportsMultiModal
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.platforms import current_platform
from vllm.sequence import IntermediateTensors

from vllm_csp.allocator import keep_freed_memory
from vllm_csp.config import CspConfig
from vllm_csp.kv.tracker import BatchTracker
from vllm_csp.models.clip_pixels import normalise_clip
from vllm_csp.models.config import LisaConfig
from vllm_csp.models.int8_linear import use_int8
from vllm_csp.models.processor import (
    LisaDummyInputs,
    LisaProcessingInfo,
    LisaProcessor,
    tensor_to_key,
)
from vllm_csp.models.projector import build_projector, build_text_hidden_fcs
from vllm_csp.models.sam_source import SamSource, encode_stream
from vllm_csp.models.stage_runner import StageRunner
from vllm_csp.models.staged_llama import StagedLlamaForCausalLM
from vllm_csp.models.vision_probe import VisionProbe
from vllm_csp.models.weight_names import VISION_TOWER_PREFIX, WEIGHT_NAMES
from vllm_csp.orphans import end_with_parent
from vllm_csp.readout.recorder import Recorder
from vllm_csp.readout.store import ReadoutStore
from vllm_csp.sam.mask_service import MaskService
from vllm_csp.sam.sam import Sam
from vllm_csp.schedules import staged_schedule
from vllm_csp.timeline import Timeline
from vllm_csp.tokens import Schedule


@MULTIMODAL_REGISTRY.register_processor(
    LisaProcessor, info=LisaProcessingInfo, dummy_inputs=LisaDummyInputs
)
class LISAForCausalLM(nn.Module, SupportsMultiModal):
    """The published checkpoint layout, loaded unchanged.

    Forward computes the language model's hidden states; masks are decoded outside of it, by
    `masks`, from the queries that `recorder` kept.
    """

    if TYPE_CHECKING:
        # From vLLM's untyped interface.
        configure_mm_token_handling: Callable[..., None]
        _mark_tower_model: Callable[..., AbstractContextManager[None]]
        _mark_language_model: Callable[..., AbstractContextManager[None]]
        language_model: Any

    packed_modules_mapping = {  # noqa: RUF012 - vLLM's interface
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    hf_to_vllm_mapper = WEIGHT_NAMES

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """Text that stands for an image in a plain prompt."""
        if modality == "image":
            return "<image>"
        raise ValueError(f"LISA takes images, not {modality}")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        end_with_parent()  # Also where this process was forked, which loads no plugins anew.
        if current_platform.is_cpu():
            keep_freed_memory()
        config: LisaConfig = vllm_config.model_config.hf_config
        settings = CspConfig.from_additional_config(vllm_config.additional_config)
        self.config = config
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_index])
        self._build_towers(vllm_config, settings, prefix)
        self._build_language_model(vllm_config, settings, prefix)
        self._build_masks(vllm_config, settings)
        # Masks are decoded once, not by every tensor-parallel rank.
        self.decodes_masks = get_tensor_model_parallel_rank() == 0

    def _build_towers(self, vllm_config: VllmConfig, settings: CspConfig, prefix: str) -> None:
        """CLIP with its projector, and SAM."""
        config = self.config
        sam_source = SamSource.find(vllm_config)
        self.secondary_weights = [
            DefaultModelLoader.Source(config.vision_tower, None, prefix=VISION_TOWER_PREFIX),
            *sam_source.secondary_weights,
        ]
        self.hf_to_vllm_mapper = sam_source.mapper | self.hf_to_vllm_mapper
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = CLIPVisionModel(
                config.vision_config,
                quant_config=None,
                num_hidden_layers_override=_selected_layers(config),
                require_post_norm=False,
                prefix=maybe_prefix(prefix, "vision_tower"),
            )
            self.mm_projector = build_projector(config)
            self.visual_model = Sam(sam_source.geometry)
            if settings.sam_quantization == "int8":
                use_int8(self.visual_model.image_encoder)

    def _build_language_model(
        self, vllm_config: VllmConfig, settings: CspConfig, prefix: str
    ) -> None:
        """Llama, and what runs it in stages if the schedule has some."""
        schedule = staged_schedule(vllm_config)
        with self._mark_language_model(vllm_config):
            self.language_model = _language_model(
                vllm_config, schedule, maybe_prefix(prefix, "language_model")
            )
        self.runner: StageRunner | None = None
        self.vision_probe = VisionProbe(self.vision_tower, schedule)
        if schedule is not None:
            tracker = BatchTracker(
                vllm_config.instance_id,
                schedule,
                self.config.image_token_index,
                settings.share_images and self.language_model.model.caches_apart,
            )
            self.runner = self.language_model.model.runner = StageRunner(schedule, tracker)

    def _build_masks(self, vllm_config: VllmConfig, settings: CspConfig) -> None:
        """What makes masks of read-out rows, and notes when what was done."""
        self.text_hidden_fcs = build_text_hidden_fcs(self.config)
        self.masks = MaskService(
            self.visual_model,
            settings.embedding_cache_size,
            # On a CPU it would be the same memory.
            0 if current_platform.is_cpu() else settings.embedding_host_cache_size,
            encode_stream(settings),
        )
        self.recorder = Recorder(
            vllm_config.instance_id,
            project=self.text_hidden_fcs[0],
            store=ReadoutStore(self.masks.embeddings.pin, self.masks.embeddings.unpin),
        )
        traced = vllm_config.observability_config.otlp_traces_endpoint is not None
        self.timeline = Timeline(enabled=traced)
        self.recorder.intervals = lambda: self.timeline.step
        if self.runner is not None:
            self.recorder.kept_tokens = self.runner.kept_tokens
            self.runner.timeline = self.timeline

    def embed_multimodal(
        self,
        clip_pixels: torch.Tensor | None = None,
        sam_pixels: torch.Tensor | list[torch.Tensor] | None = None,
        original_size: torch.Tensor | None = None,
        image_key: torch.Tensor | None = None,
        **kwargs: object,
    ) -> MultiModalEmbeddings:
        """Rows for the language model, and SAM's embedding into the cache as a side effect.

        clip_pixels uint8 [B, S, S, 3], sam_pixels B x uint8 [h, w, 3] (the long side is
        `sam_image_size`), original_size int [B, 2] (height, width), image_key uint8 [B, 16].
        Returns [B, num_image_tokens, hidden].
        """
        if clip_pixels is None:
            return []
        assert sam_pixels is not None and original_size is not None and image_key is not None
        keys = [tensor_to_key(key) for key in image_key]
        if self.decodes_masks:
            ends_on = self.masks.encode_stream.own
            with self.timeline.encoding("vllm_csp.encode_sam", keys, ends_on):
                self.masks.encode(
                    keys=keys,
                    pixels=list(sam_pixels),
                    original_sizes=[(int(height), int(width)) for height, width in original_size],
                )
        with self.timeline.encoding("vllm_csp.encode_clip", keys):
            return self.vision_probe.ride(self.image_features(clip_pixels), clip_pixels)

    def image_features(self, clip_pixels: torch.Tensor) -> torch.Tensor:
        """Projected patch features: uint8 [B, S, S, 3] -> [B, num_image_tokens, hidden]."""
        strategy = "full" if self.config.mm_vision_select_feature == "cls_patch" else "default"
        pixels = normalise_clip(clip_pixels, self.vision_tower.dtype)
        return self.mm_projector(self.vision_tower(pixels, feature_select_strategy=strategy))

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: MultiModalEmbeddings | None = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Input embeddings [tokens, hidden], image rows put in at `is_multimodal`.

        What rides on the image rows for the selectors is taken off before.
        """
        if self.runner is not None and multimodal_embeddings is not None:
            multimodal_embeddings, self.runner.extras = self.vision_probe.split(
                multimodal_embeddings, self.config.text_config.hidden_size
            )
        # Behind the vocabulary; image rows replace it, and a stray one must not be looked up.
        input_ids = input_ids.masked_fill(input_ids == self.config.image_token_index, 0)
        return super().embed_input_ids(
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Hidden states [tokens, hidden] after the final norm."""
        with self.timeline.forward(len(positions)):
            return self.language_model.model(
                input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds
            )

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits of the sampling rows; these are the rows that masks are read out from."""
        self.recorder.see(hidden_states)
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the published names; returns the parameters that were loaded."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(
            weights, mapper=self.hf_to_vllm_mapper
        )
        self.visual_model.require_complete()
        return loaded

    def get_model_state_cls(self) -> type[Any]:
        """What model runner V2 keeps per request: vLLM's own state, or the staged one."""
        if self.runner is None:
            from vllm.v1.worker.gpu.model_states.default import DefaultModelState

            return DefaultModelState
        from vllm_csp.kv.model_state import StagedModelState

        return StagedModelState

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which modules belong to which part."""
        return MultiModelKeys.from_string_field(
            language_model="language_model",
            connector=["mm_projector", "text_hidden_fcs"],
            tower_model=["vision_tower", "visual_model"],
        )


def _language_model(vllm_config: VllmConfig, schedule: Schedule | None, prefix: str) -> nn.Module:
    """vLLM's own Llama, or the staged one when a schedule asks for stages."""
    text_config = vllm_config.model_config.hf_config.text_config
    if schedule is None:
        return init_vllm_registered_model(
            vllm_config=vllm_config,
            hf_config=text_config,
            prefix=prefix,
            architectures=["LlamaForCausalLM"],
        )
    inner = vllm_config.with_hf_config(text_config, architectures=["LlamaForCausalLM"])
    return StagedLlamaForCausalLM(vllm_config=inner, prefix=prefix)


def _selected_layers(config: LisaConfig) -> int:
    """Layers of the tower up to the one whose output is used (-2: all but the last)."""
    layers: int = config.vision_config.num_hidden_layers
    select = config.mm_vision_select_layer
    return select + 1 + layers if select < 0 else select
