"""vLLM's own scheduler and KV cache managers without an engine: no weights, no forward pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.v1.attention.backends.utils import resolve_kv_cache_layout
from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_configs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from vllm_csp.kv.scheduler import StageScheduler
from vllm_csp.kv.spec import StageManager, StageSpec
from vllm_csp.schedules import staged_schedule
from vllm_csp.tokens import Schedule

IMAGE_TOKENS = 256
IMAGE_TOKEN = 32004
BLOCK = 16
# LISA-7B in bf16.
HEADS, HEAD_SIZE = 32, 128


def config_folder(standin: Path, folder: Path, num_layers: int) -> Path:
    """A checkpoint's configuration without its weights, with another number of layers."""
    if not folder.exists():
        shutil.copytree(standin, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        config = json.loads((standin / "config.json").read_text())
        config["num_hidden_layers"] = num_layers
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def engine_config(folder: Path, csp: dict[str, Any], **engine_args: Any) -> VllmConfig:
    """What vLLM makes of engine flags before anything is started."""
    options: dict[str, Any] = {
        "model": str(folder),
        "dtype": "bfloat16",
        "max_model_len": 1024,
        "max_num_seqs": 256,
        "block_size": BLOCK,
        # Staged engines switch it off themselves.
        "enable_prefix_caching": False,
        "additional_config": {"csp": csp},
    }
    return EngineArgs(**{**options, **engine_args}).create_engine_config()


def layer_name(number: int) -> str:
    """As vLLM names attention layers."""
    return f"language_model.model.layers.{number}.self_attn.attn"


def layer_specs(
    schedule: Schedule | None, num_layers: int, block_size: int = BLOCK
) -> dict[str, KVCacheSpec]:
    """What the attention layers ask for; dense without a schedule."""
    geometry: dict[str, Any] = {
        "block_size": block_size,
        "num_kv_heads": HEADS,
        "head_size": HEAD_SIZE,
        "dtype": torch.bfloat16,
    }
    if schedule is None:
        return {layer_name(i): FullAttentionSpec(**geometry) for i in range(num_layers)}
    return {
        layer_name(i): StageSpec(**geometry, stage=schedule.stage_of(i)) for i in range(num_layers)
    }


def kv_cache_config(config: VllmConfig, memory: int) -> KVCacheConfig:
    """vLLM's layout of that many bytes; also notes the number of blocks in the config."""
    layers = config.model_config.hf_config.text_config.num_hidden_layers
    specs = layer_specs(staged_schedule(config), layers, config.cache_config.block_size)
    # The engine core does this with what its workers' attention backends support.
    resolve_kv_cache_layout(config, [["LBHNC"]])
    made = generate_scheduler_kv_cache_config(get_kv_cache_configs(config, [specs], [memory]))
    config.cache_config.num_gpu_blocks = made.num_blocks
    return made


class Bench:
    """A scheduler of the real class, fed with made-up model outputs."""

    def __init__(self, config: VllmConfig, memory: int) -> None:
        self.schedule = staged_schedule(config)
        scheduler_class = Scheduler if self.schedule is None else StageScheduler
        self.scheduler: Scheduler = scheduler_class(
            config,
            kv_cache_config(config, memory),
            StructuredOutputManager(config),
            block_size=config.cache_config.block_size,
            hash_block_size=config.cache_config.block_size,
        )
        self.pool = self.scheduler.kv_cache_manager.block_pool

    @property
    def managers(self) -> Sequence[Any]:
        """One per KV group."""
        managers: Sequence[Any] = self.scheduler.kv_cache_manager.coordinator.single_type_managers
        return managers

    @property
    def free_blocks(self) -> int:
        """Blocks that a new request could take."""
        return int(self.pool.get_num_free_blocks())

    def held(self, name: str) -> tuple[int, ...]:
        """Blocks of a request per KV group."""
        ids = self.scheduler.kv_cache_manager.get_block_ids(name)
        return tuple(len(one) for one in ids)

    def block_ids(self, name: str) -> list[int]:
        """All blocks of a request."""
        ids = self.scheduler.kv_cache_manager.get_block_ids(name)
        return [block for group in ids for block in group]

    def remembered(self) -> int:
        """Requests that stage managers still know."""
        stages = [one for one in self.managers if isinstance(one, StageManager)]
        return sum(len(one._dropped) + len(one.req_to_blocks) for one in stages)

    def answer(self, scheduled: SchedulerOutput, token: int = 7) -> None:
        """Every request that has been fed all its tokens gets one more."""
        names = list(scheduled.num_scheduled_tokens)
        requests = self.scheduler.requests
        sampled = []
        for name in names:
            request = requests.get(name)
            done = request is not None and not request.is_prefill_chunk
            sampled.append([token] if done else [])
        output = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=sampled,
        )
        self.scheduler.update_from_output(scheduled, output)

    def step(self) -> SchedulerOutput:
        """Schedule, and answer at once."""
        scheduled = self.scheduler.schedule()
        self.answer(scheduled)
        return scheduled


def request(
    name: str, text: int, image: str | None = None, before: int = 20, max_tokens: int = 400
) -> Request:
    """A request of `text` words and a picture after `before` of them, or none."""
    ids, features = [5] * text, None
    if image is not None:
        before = min(before, text)
        ids = [5] * before + [IMAGE_TOKEN] * IMAGE_TOKENS + [5] * (text - before)
        place = PlaceholderRange(offset=before, length=IMAGE_TOKENS)
        features = [MultiModalFeatureSpec(None, "image", image, place, image)]
    return Request(
        request_id=name,
        prompt_token_ids=ids,
        sampling_params=SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.0),
        pooling_params=None,
        mm_features=features,
    )
