"""Prompts that are never split between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.logger import init_logger
from vllm.platforms import current_platform

if TYPE_CHECKING:
    from vllm.config import VllmConfig

# Under vLLM's own name, or its logging would leave the lines out.
logger = init_logger(f"vllm.plugins.{__name__}")


def keep_prompts_whole(vllm_config: VllmConfig, reason: str) -> None:
    """Switch chunked prefill off, and let a step take the longest prompt; says why in the log."""
    scheduler = vllm_config.scheduler_config
    max_len = vllm_config.model_config.max_model_len
    if scheduler.enable_chunked_prefill:
        logger.info("chunked prefill is off: %s", reason)
        scheduler.enable_chunked_prefill = False
    # Both limit what a step takes of a prompt: one splits it, the other lets it wait forever.
    scheduler.long_prefill_token_threshold = 0
    scheduler.max_num_scheduled_tokens = None
    if scheduler.max_num_batched_tokens < max_len:
        logger.info("max_num_batched_tokens raised to %d: prompts are prefilled whole", max_len)
        scheduler.max_num_batched_tokens = max_len


def spare_cpu_generators(vllm_config: VllmConfig) -> None:
    """Keep prompts whole on a CPU, where a split one with a `seed` stops the engine.

    Runner V1 samples from the row of an unfinished prompt, throws the token away and rewinds the
    request's random generator, which a CPU's cannot do ("CPU Generator does not use offset").
    """
    if not current_platform.is_cpu():
        return
    keep_prompts_whole(vllm_config, "on a CPU, vLLM fails on a split prompt with a seed")
    # Where the encoder has no room for an image, vLLM schedules the text in front of it alone.
    scheduler = vllm_config.scheduler_config
    room = scheduler.max_num_seqs * vllm_config.model_config.hf_config.num_image_tokens
    scheduler.max_num_encoder_input_tokens = max(scheduler.max_num_encoder_input_tokens, room)
    scheduler.encoder_cache_size = max(scheduler.encoder_cache_size, room)
