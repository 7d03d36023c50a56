"""Engine flags that staged schedules need, and those they cannot run with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.logger import init_logger

from vllm_csp.kv.whole_prompts import keep_prompts_whole
from vllm_csp.tokens import Schedule
from vllm_csp.tokens.accounting import cost_of_kv_groups

if TYPE_CHECKING:
    from vllm.config import VllmConfig

# Under vLLM's own name, or its logging would leave lines out.
logger = init_logger(f"vllm.plugins.{__name__}")

SCHEDULER = "vllm_csp.kv.scheduler.StageScheduler"


def require_staging(vllm_config: VllmConfig, schedule: Schedule) -> None:
    """Set what stages need; raise `ValueError` with reason and fix for what they cannot run with.

    Chunked prefill goes off: the score row and the image rows must be in one step. Prefix caching
    goes off: blocks of a stage hold other tokens than vLLM's block hashes say.
    """
    _refuse_unsupported(vllm_config)
    vllm_config.scheduler_config.scheduler_cls = SCHEDULER
    keep_prompts_whole(vllm_config, "stages need image and question in one step")
    if vllm_config.cache_config.enable_prefix_caching:
        logger.info("prefix caching is off: stages keep different tokens of a prompt")
        vllm_config.cache_config.enable_prefix_caching = False
    _capture_only_decoding(vllm_config)
    if (cost := cost_of_kv_groups(schedule)) is not None:
        logger.warning("%s", cost)


def _capture_only_decoding(vllm_config: VllmConfig) -> None:
    """Stages gather a step's rows between layers, which compiled code and graphs cannot follow.

    Decoding has one row per request in every stage: its steps may be captured, where vLLM would
    capture them. In model runner V2 only: V1 says nothing of the dummy steps that it captures, so
    that they would be planned as the step before them.
    """
    from vllm.config import CompilationMode, CUDAGraphMode
    from vllm.config.vllm import OptimizationLevel

    compilation = vllm_config.compilation_config
    compilation.mode = CompilationMode.NONE
    mode = compilation.cudagraph_mode
    # Not chosen by anyone: vLLM's defaults come later, and by level.
    by_level = mode is None and vllm_config.optimization_level >= OptimizationLevel.O2
    wanted = by_level or (mode is not None and mode.decode_mode() == CUDAGraphMode.FULL)
    compilation.cudagraph_mode = (
        CUDAGraphMode.FULL_DECODE_ONLY
        if wanted and vllm_config.use_v2_model_runner
        else CUDAGraphMode.NONE
    )


def _refuse_unsupported(vllm_config: VllmConfig) -> None:
    scheduler, parallel = vllm_config.scheduler_config, vllm_config.parallel_config
    refusals = {
        "--disable-hybrid-kv-cache-manager folds all stages into one KV layout; leave it out": (
            scheduler.disable_hybrid_kv_cache_manager is True
        ),
        "a KV connector (--kv-transfer-config) moves blocks by token position, which differs "
        "between stages; leave it out": vllm_config.kv_transfer_config is not None,
        "--kv-offloading-size moves KV blocks by token position, which differs between stages; "
        "leave it out": vllm_config.cache_config.kv_offloading_size is not None,
        "--decode-context-parallel-size splits a request's KV by position, which differs between "
        "stages; set it to 1": parallel.decode_context_parallel_size > 1,
        "--prefill-context-parallel-size splits a prompt over ranks, and a stage needs it whole; "
        "set it to 1": parallel.prefill_context_parallel_size > 1,
        "--scheduler-cls must be left out: stages bring their own scheduler": (
            scheduler.scheduler_cls not in (None, SCHEDULER)
        ),
    }
    for reason, refused in refusals.items():
        if refused:
            raise ValueError(f"policies other than `dense` cannot run like this: {reason}.")
