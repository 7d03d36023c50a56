"""From settings to the schedule of a model: which image tokens go through which layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_csp.config import CspConfig
from vllm_csp.tokens import Schedule
from vllm_csp.tokens.policies import policy

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_csp.models.config import LisaConfig


def schedule_of(settings: CspConfig, config: LisaConfig) -> Schedule:
    """The schedule of a policy for a model's layers and image tokens.

    Raises `ValueError` for knobs that do not fit the model.
    """
    return policy(
        settings.policy,
        config.text_config.num_hidden_layers,
        config.num_image_tokens,
        **settings.knobs,
    )


# What only the vision side can measure, and measures when the engine's own policy asks for it.
VISION_NEEDS = frozenset({"cls_attention", "key_features", "instance_masks"})


def vision_needs(schedule: Schedule) -> set[str]:
    """What a schedule's selectors need of the vision side."""
    needs: set[str] = {need for stage in schedule.stages for need in stage.selector.all_needs}
    return needs & VISION_NEEDS


def follows(guest: Schedule, host: Schedule) -> bool:
    """Whether an engine of schedule `host` can run a request on `guest`."""
    return guest.layout == host.layout and vision_needs(guest) <= vision_needs(host)


def staged_schedule(vllm_config: VllmConfig) -> Schedule | None:
    """The schedule that an engine runs in stages; None when it runs every layer on every token."""
    settings = CspConfig.from_additional_config(vllm_config.additional_config)
    schedule = schedule_of(settings, vllm_config.model_config.hf_config)
    return None if schedule.is_dense else schedule
