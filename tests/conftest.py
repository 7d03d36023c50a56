"""Real engines and a real server, each started once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import MISSING, oracle_folder
from tests.server import Server, serving
from vllm_csp.serving.segmenter import Segmenter

# 4096 tokens in fp32: a dozen questions at once, so that larger batches wait for room.
KV_CACHE_BYTES = 1 << 25
ENGINE = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 32}


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Folder of the recorded LISA outputs; the test is skipped where it is not at hand."""
    folder = oracle_folder()
    if not folder.is_dir():
        pytest.skip(MISSING)
    return folder


@pytest.fixture(scope="session")
def engine_fp32(oracle: Path) -> Iterator[Segmenter]:
    """The oracle's checkpoint, offline, fp32."""
    yield from _engine(oracle, "float32")


@pytest.fixture(scope="session")
def engine_bf16(oracle: Path) -> Iterator[Segmenter]:
    """The oracle's checkpoint, offline, bf16."""
    yield from _engine(oracle, "bfloat16")


def _engine(oracle: Path, dtype: str) -> Iterator[Segmenter]:
    options: dict[str, Any] = {**ENGINE, "disable_log_stats": False}
    with pytest.MonkeyPatch.context() as patch:
        # Lets tests run functions in the worker; read when the engine starts and at each call.
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
        segmenter = Segmenter(
            str(oracle / "checkpoint"),
            dtype=dtype,
            kv_cache_memory_bytes=KV_CACHE_BYTES,
            **options,
        )
        yield segmenter
        segmenter.llm.llm_engine.engine_core.shutdown()


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
