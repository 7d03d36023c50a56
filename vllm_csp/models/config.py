"""The configuration of a LISA checkpoint, from the published `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, PretrainedConfig

from vllm_csp.cpu_dtypes import offer_fast_dtypes_only
from vllm_csp.images import SAM_IMAGE_SIZE

# Fields of the published config that belong to the language model.
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "head_dim",
)


class LisaConfig(PretrainedConfig):
    """Configuration with the parts that vLLM asks for: text, vision tower, image token.

    `image_token_index` is the first id behind the vocabulary: LISA's own -200 is no valid id, and
    the 13B vocabulary has no spare one. `sam_image_size` is no field of a checkpoint: the settings
    give it (`hook.py`), and the processor, which sees only this object, reads it here.
    """

    model_type = "lisa"
    sub_configs = {"text_config": LlamaConfig, "vision_config": CLIPVisionConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: Mapping[str, Any] | None = None,
        vision_config: Mapping[str, Any] | None = None,
        vision_tower: str = "",
        mm_hidden_size: int = 1024,
        mm_vision_select_layer: int = -2,
        mm_vision_select_feature: str = "patch",
        mm_projector_type: str = "linear",
        out_dim: int = 256,
        sam_image_size: int = SAM_IMAGE_SIZE,
        **kwargs: Any,
    ) -> None:
        self.text_config = LlamaConfig(**dict(text_config or {}))
        self.vision_config = CLIPVisionConfig(**dict(vision_config or {}))
        self.vision_tower = vision_tower
        self.mm_hidden_size = mm_hidden_size
        self.mm_vision_select_layer = mm_vision_select_layer
        self.mm_vision_select_feature = mm_vision_select_feature
        self.mm_projector_type = mm_projector_type
        self.out_dim = out_dim
        self.sam_image_size = sam_image_size
        self.image_token_index = self.text_config.vocab_size
        kwargs.setdefault("architectures", ["LISAForCausalLM"])
        super().__init__(**kwargs)

    @classmethod
    def from_published(
        cls, published: Mapping[str, Any], vision_config: Mapping[str, Any], vision_tower: str
    ) -> LisaConfig:
        """Build from the flat published fields.

        Raises `ValueError` for relatives of LISA that share its architecture name but not its
        weights (GLaMM).
        """
        if "bbox_token_idx" in published or "with_region" in published:
            raise ValueError(
                "this is a GLaMM checkpoint (it has region inputs); vllm_csp serves LISA ones"
            )
        text = {name: published[name] for name in _TEXT_FIELDS if published.get(name) is not None}
        dtype = published.get("torch_dtype") or published.get("dtype") or "bfloat16"
        return cls(
            text_config={"architectures": ["LlamaForCausalLM"], "dtype": dtype, **text},
            vision_config=vision_config,
            vision_tower=vision_tower,
            mm_hidden_size=published.get("mm_hidden_size", 1024),
            mm_vision_select_layer=published.get("mm_vision_select_layer", -2),
            mm_vision_select_feature=published.get("mm_vision_select_feature", "patch"),
            mm_projector_type=published.get("mm_projector_type", "linear"),
            out_dim=published.get("out_dim", 256),
            dtype=dtype,
            tie_word_embeddings=published.get("tie_word_embeddings", False),
            quantization_config=published.get("quantization_config"),
        )

    @property
    def num_image_tokens(self) -> int:
        """Rows that one image adds to the prompt: the patches of the vision tower."""
        vision = self.vision_config
        patches: int = (vision.image_size // vision.patch_size) ** 2
        return patches + (self.mm_vision_select_feature == "cls_patch")


def resolve_vision_tower(checkpoint: str, vision_tower: str) -> str:
    """The vision tower as a path or hub id; a folder beside the weights wins over a hub id."""
    inside = Path(checkpoint) / vision_tower
    return str(inside) if inside.is_dir() else vision_tower


def lisa_aware_parser(base: type[Any]) -> type[Any]:
    """A subclass of vLLM's Hugging Face config parser that also reads LISA's config."""

    class LisaAwareConfigParser(base):
        reads_lisa = True

        def parse(
            self, model: str | Path, trust_remote_code: bool, revision: str | None = None, **kw: Any
        ) -> tuple[dict[str, Any], PretrainedConfig]:
            published, _ = PretrainedConfig.get_config_dict(model, revision=revision)
            if published.get("architectures") != ["LISAForCausalLM"]:
                return super().parse(model, trust_remote_code, revision=revision, **kw)
            # Read before vLLM chooses a precision; no hook comes before that.
            offer_fast_dtypes_only()
            name = published.get("vision_tower") or published.get("mm_vision_tower")
            if not name:
                raise ValueError(f"{model}/config.json names no `vision_tower`")
            tower = resolve_vision_tower(str(model), name)
            vision = CLIPVisionConfig.from_pretrained(tower).to_dict()
            config = LisaConfig.from_published(published, vision, tower)
            config.name_or_path = str(model)
            return published, config

    return LisaAwareConfigParser
