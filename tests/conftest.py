"""Real engines and a real server, each started once per session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.oracle import MISSING, oracle_folder
from tests.server import Server, serving
from vllm_csp.cpu_dtypes import has_instructions
from vllm_csp.serving.segmenter import Segmenter

# 4096 tokens in fp32: a dozen questions at once, so that larger batches wait for room.
KV_CACHE_BYTES = 1 << 25
ENGINE = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 32}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs in bf16 is slow on CPUs that emulate it, where nobody serves in it."""
    if has_instructions(torch.bfloat16):
        return
    for item in items:
        assert isinstance(item, pytest.Function)
        asked = {"run_bf16", "engine_bf16"} & set(item.fixturenames)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        given = "bf16" in (parameters.get("run"), parameters.get("precision"))
        if asked or (given and {"run", "oracle_sam"} & set(item.fixturenames)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Folder of the recorded LISA outputs; the test is skipped where it is not at hand."""
    folder = oracle_folder()
    if not folder.is_dir():
        pytest.skip(MISSING)
    return folder


@pytest.fixture(scope="session")
def safetensors_checkpoint(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracle's checkpoint with its weights in two safetensors files."""
    folder = tmp_path_factory.mktemp("safetensors")
    without_pickle = shutil.ignore_patterns("pytorch_model*")
    shutil.copytree(oracle / "checkpoint", folder, dirs_exist_ok=True, ignore=without_pickle)
    state = torch.load(oracle / "checkpoint" / "pytorch_model.bin", weights_only=True)
    names = sorted(state)
    half = len(names) // 2
    files = {"model-00001-of-00002.safetensors": names[:half]}
    files["model-00002-of-00002.safetensors"] = names[half:]
    for file, chosen in files.items():
        save_file({name: state[name].contiguous() for name in chosen}, folder / file)
    places = {name: file for file, chosen in files.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.fixture(scope="session")
def engine_fp32(oracle: Path) -> Iterator[Segmenter]:
    """The oracle's checkpoint as it is, a pickle, offline in fp32."""
    yield from _engine(oracle / "checkpoint", "float32")


@pytest.fixture(scope="session")
def engine_bf16(safetensors_checkpoint: Path) -> Iterator[Segmenter]:
    """The same weights from safetensors, offline in bf16."""
    yield from _engine(safetensors_checkpoint, "bfloat16")


def _engine(checkpoint: Path, dtype: str) -> Iterator[Segmenter]:
    # Small steps, as on a GPU: of several prompts at once, some are split between two. On a CPU the
    # plugin does not let that happen, because vLLM fails on a split prompt with a `seed`; users of
    # these engines give none. `server` runs as users' CPUs do.
    options: dict[str, Any] = {**ENGINE, "max_num_batched_tokens": 680, "disable_log_stats": False}
    with pytest.MonkeyPatch.context() as patch:
        # Lets tests run functions in the worker; read when the engine starts and at each call.
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
        with pytest.MonkeyPatch.context() as while_starting:
            spare = "vllm_csp.models.hook.spare_cpu_generators"
            while_starting.setattr(spare, lambda vllm_config: None)
            segmenter = Segmenter(
                str(checkpoint),
                dtype=dtype,
                kv_cache_memory_bytes=KV_CACHE_BYTES,
                **options,
            )
        yield segmenter
        segmenter.llm.llm_engine.engine_core.shutdown(timeout=20)


@pytest.fixture(scope="session")
def server(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The oracle's checkpoint behind `vllm serve`, fp32, with an API key."""
    flags = (
        *("--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", str(ENGINE["max_model_len"])),
        *("--max-num-seqs", str(ENGINE["max_num_seqs"])),
        *("--kv-cache-memory-bytes", str(KV_CACHE_BYTES)),
    )
    log = tmp_path_factory.mktemp("server") / "vllm.log"
    with serving(oracle / "checkpoint", log, *flags, key="a-key-of-the-tests") as running:
        yield running
