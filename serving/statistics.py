"""What a request's image tokens cost: the `segmentation` object of a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_csp.config import CspConfig
from vllm_csp.schedules import schedule_of, vision_needs
from vllm_csp.tokens import Schedule
from vllm_csp.tokens.accounting import DecoderShape, flops_ratio, kv_blocks

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class TokenStatistics:
    """Exact figures from the schedule; nothing is measured."""

    def __init__(self, vllm_config: VllmConfig) -> None:
        settings = CspConfig.from_additional_config(vllm_config.additional_config)
        config = vllm_config.model_config.hf_config
        text = config.text_config
        self._config = config
        self.policy = settings.policy
        self.schedule: Schedule = schedule_of(settings, config)
        self._block_size: int = vllm_config.cache_config.block_size
        self._shape = DecoderShape(
            hidden_size=text.hidden_size,
            ffn_size=text.intermediate_size,
            num_heads=text.num_attention_heads,
            num_kv_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
        )

    @property
    def kept_ratio(self) -> float:
        """Image-token layers over those of a dense run."""
        schedule = self.schedule
        return schedule.mean_visual_tokens_per_layer / schedule.num_image_tokens

    def own_schedule(self, section: Mapping[str, Any]) -> Schedule:
        """The schedule of a request's own policy.

        Raises `ValueError` when the server's KV layout, or what its vision tower measures, does not
        allow it, and for what only a server can be set to.
        """
        settings = CspConfig.from_section(section, "segmentation.policy")
        fixed = sorted(settings.model_fields_set & set(CspConfig.model_fields) - {"policy"})
        if fixed:
            raise ValueError(
                f"segmentation.policy: {', '.join(fixed)} can be set when a server starts, not in "
                "a request, which chooses a policy and its knobs"
            )
        schedule = schedule_of(settings, self._config)
        if self.schedule.is_dense or schedule.layout != self.schedule.layout:
            raise ValueError(
                f"this server keeps [{self.schedule}]; a request may change how tokens are chosen, "
                f"not how many or where, and asked for [{schedule}]"
            )
        missing = vision_needs(schedule) - vision_needs(self.schedule)
        if missing:
            raise ValueError(
                f"the chosen policy needs {sorted(missing)} of the vision tower, which this server "
                "does not compute: start it with a policy that does"
            )
        return schedule

    def of_prompt(self, num_prompt_tokens: int, policy: str | None = None) -> dict[str, Any]:
        """Figures for a prompt with an image; `num_prompt_tokens` includes the image's.

        `policy` names the request's own one.
        """
        schedule = self.schedule
        text_tokens = num_prompt_tokens - schedule.num_image_tokens
        return {
            "policy": policy or self.policy,
            "visual_tokens": schedule.num_image_tokens,
            "stage_layers": [[one.first_layer, one.last_layer] for one in schedule.stages],
            "kept_per_stage": list(schedule.kept_per_stage),
            "mean_visual_tokens_per_layer": schedule.mean_visual_tokens_per_layer,
            "flops_ratio": round(flops_ratio(schedule, self._shape, text_tokens), 6),
            "kv_blocks": list(kv_blocks(schedule, num_prompt_tokens, self._block_size)),
        }
