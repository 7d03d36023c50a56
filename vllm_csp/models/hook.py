"""Engine flags that LISA needs, set when vLLM has read the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform

from vllm_csp.config import CspConfig
from vllm_csp.cpu_cores import use_all_of_few_cores
from vllm_csp.cpu_dtypes import warn_of_slow_dtype
from vllm_csp.kv.requirements import require_staging
from vllm_csp.kv.whole_prompts import spare_cpu_generators
from vllm_csp.models.sam_source import require_encoder
from vllm_csp.plugin import TOKENIZER_MODE
from vllm_csp.schedules import staged_schedule

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

WORKER_EXTENSION = "vllm_csp.worker.MaskWorkerExtension"
READOUT_PROCESSOR = "vllm_csp.readout.processor:ReadoutProcessor"


class LisaEngineHook(VerifyAndUpdateConfig):
    """Chooses tokenizer, worker extension and read-out recorder, so that no user has to."""

    @staticmethod
    def verify_and_update_model_config(model_config: ModelConfig) -> None:
        """Use LISA's tokenizer, fetch images from public addresses only, and keep their alpha.

        LISA's reader drops the alpha channel, which vLLM would paint white.
        """
        from vllm_csp.media.connector import choose_connector

        choose_connector()
        model_config.tokenizer_mode = TOKENIZER_MODE
        multimodal = model_config.multimodal_config
        image_options = dict(multimodal.media_io_kwargs.get("image", {}))
        # `None` keeps the decoded mode: LISA's reader drops alpha, vLLM would paint it white.
        multimodal.media_io_kwargs["image"] = {**image_options, "image_mode": None}

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Set the flags that LISA needs, and refuse those that it cannot run with.

        Raises `ValueError` with the reason and the fix.
        """
        if current_platform.is_cpu():
            use_all_of_few_cores()
            warn_of_slow_dtype(vllm_config.model_config.dtype)
        schedule = staged_schedule(vllm_config)
        if schedule is None:
            spare_cpu_generators(vllm_config)
        else:
            require_staging(vllm_config, schedule)
        require_encoder(vllm_config)
        if vllm_config.speculative_config is not None:
            raise ValueError(
                "Mask queries are read from one row per request and step: leave "
                "--speculative-config out."
            )
        settings = CspConfig.from_additional_config(vllm_config.additional_config)
        vllm_config.model_config.hf_config.sam_image_size = settings.sam_image_size
        parallel = vllm_config.parallel_config
        if parallel.pipeline_parallel_size > 1:
            raise ValueError(
                "LISA needs image encoder and mask decoder in one worker: pipeline parallelism is "
                "not supported. Use --tensor-parallel-size or --data-parallel-size instead."
            )
        if parallel.worker_extension_cls not in ("", WORKER_EXTENSION):
            raise ValueError(
                f"--worker-extension-cls {parallel.worker_extension_cls} collides with the one "
                f"that decodes masks: let it inherit from {WORKER_EXTENSION}, or leave it out."
            )
        parallel.worker_extension_cls = WORKER_EXTENSION
        processors = list(vllm_config.model_config.logits_processors or [])
        if READOUT_PROCESSOR not in processors:
            vllm_config.model_config.logits_processors = [*processors, READOUT_PROCESSOR]
