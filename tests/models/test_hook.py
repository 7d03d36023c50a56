"""What the model's hook sets, and what it refuses."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs

from tests.models.published import Published
from vllm_csp.models import sam_source
from vllm_csp.models.hook import READOUT_PROCESSOR, WORKER_EXTENSION, LisaEngineHook


def configured(published: Published, **options: Any) -> VllmConfig:
    arguments = {"max_model_len": 1024, "enforce_eager": True, **options}
    return EngineArgs(model=str(published.folder), **arguments).create_engine_config()


def test_no_flag_is_needed(published: Published) -> None:
    config = configured(published)
    assert config.model_config.tokenizer_mode == "lisa"
    assert config.parallel_config.worker_extension_cls == WORKER_EXTENSION
    assert config.model_config.logits_processors == [READOUT_PROCESSOR]
    # Alpha is dropped by us; vLLM would paint it white.
    image_options = config.model_config.multimodal_config.media_io_kwargs["image"]
    assert image_options["image_mode"] is None


def test_own_logits_processors_stay(published: Published) -> None:
    own = "a.module:Processor"
    config = configured(published, logits_processors=[own])
    assert config.model_config.logits_processors == [own, READOUT_PROCESSOR]


def test_it_may_run_twice(published: Published) -> None:
    config = configured(published)
    LisaEngineHook.verify_and_update_config(config)
    assert config.model_config.logits_processors == [READOUT_PROCESSOR]


@pytest.mark.parametrize("size", [256, 576, 1024])
def test_the_processor_is_told_the_size_of_sams_images(published: Published, size: int) -> None:
    config = configured(published, additional_config={"csp": {"sam_image_size": size}})
    assert config.model_config.hf_config.sam_image_size == size


def test_pipeline_parallelism_is_refused_with_the_way_out(published: Published) -> None:
    config = configured(published)
    config.parallel_config.pipeline_parallel_size = 2
    with pytest.raises(ValueError, match="Use --tensor-parallel-size"):
        LisaEngineHook.verify_and_update_config(config)


def test_another_worker_extension_is_refused_with_the_way_out(published: Published) -> None:
    with pytest.raises(ValueError, match=f"let it inherit from {WORKER_EXTENSION}"):
        configured(published, worker_extension_cls="a.module.Extension")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"conv_templat": "llava_v1"}, "conv_templat: .*Fields: .*conv_template"),
        ({"conv_template": "vicuna"}, "conv_template"),
        ({"embedding_cache_size": 0}, "embedding_cache_size"),
        ({"max_masks_per_answer": "many"}, "max_masks_per_answer"),
        ({"sam_image_size": 128}, "sam_image_size: .*256"),
        ({"sam_image_size": 2048}, "sam_image_size: .*1024"),
        ({"sam_image_size": 500}, "sam_image_size: .*multiple of 64"),
        ({"sam_quantization": "fp8"}, "sam_quantization: .*'none' or 'int8'"),
        ("dense", "must be an object"),
    ],
)
def test_wrong_settings_are_named_at_start(published: Published, section: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        configured(published, additional_config={"csp": section})


@pytest.mark.parametrize(
    ("dtype", "capability", "said"),
    [
        (torch.float32, 90, "--dtype bfloat16"),
        (torch.bfloat16, 100, "leave sam_quantization out"),
        (torch.float16, 120, "leave sam_quantization out"),
        (torch.bfloat16, 90, ""),
    ],
)
def test_int8_is_refused_at_start_where_a_gpu_cannot(
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    capability: int,
    said: str,
) -> None:
    """What vLLM would know of a GPU is made up; what is refused is not."""
    config = configured(published, additional_config={"csp": {"sam_quantization": "int8"}})
    config.model_config.dtype = dtype
    gpu = SimpleNamespace(
        is_cpu=lambda: False,
        is_cuda=lambda: True,
        has_device_capability=lambda least: capability >= least,
    )
    monkeypatch.setattr(sam_source, "current_platform", gpu)
    with pytest.raises(ValueError, match=said) if said else nullcontext():
        sam_source.require_encoder(config)
