"""From the names of a published checkpoint's tensors to those of the model's modules."""

from __future__ import annotations

from vllm.model_executor.models.utils import WeightsMapper

VISION_TOWER_PREFIX = "vision_tower."

WEIGHT_NAMES = WeightsMapper(
    orig_to_new_substr={"rotary_emb.inv_freq": None, ".position_ids": None},
    orig_to_new_prefix={
        "model.mm_projector.": "mm_projector.",
        "model.text_hidden_fcs.": "text_hidden_fcs.",
        "model.visual_model.": "visual_model.",
        # Some forks keep the tower in the checkpoint; it is read from its own place.
        "model.vision_tower.": None,
        "model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        # The rest of a full CLIP checkpoint.
        f"{VISION_TOWER_PREFIX}text_model.": None,
        f"{VISION_TOWER_PREFIX}visual_projection.": None,
        f"{VISION_TOWER_PREFIX}text_projection.": None,
        f"{VISION_TOWER_PREFIX}logit_scale": None,
        # transformers 5 saves a vision tower without its outermost name.
        **{
            f"{VISION_TOWER_PREFIX}{part}.": f"{VISION_TOWER_PREFIX}vision_model.{part}."
            for part in ("embeddings", "encoder", "pre_layrnorm", "post_layernorm")
        },
    },
)
