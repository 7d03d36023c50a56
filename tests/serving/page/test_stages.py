"""The page on a server whose stages leave image tokens out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ENGINE, KV_CACHE_BYTES
from tests.server import serving
from tests.serving.page.browser import browser
from vllm_csp.client import Client

KEY = "a-key"


@pytest.mark.slow
def test_each_stage_has_a_panel_with_its_tokens(oracle: Path, photo: Path, tmp_path: Path) -> None:
    flags = (
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", str(ENGINE["max_model_len"])),
        *("--kv-cache-memory-bytes", str(KV_CACHE_BYTES)),
        *("--additional-config", '{"csp": {"policy": "csp"}}'),
    )
    question = "What is this?"
    with (
        serving(oracle / "checkpoint", tmp_path / "vllm.log", *flags, key=KEY) as server,
        browser(server.url, tmp_path / "profile") as page,
        Client(server.url, api_key=KEY) as client,
    ):
        page.load(KEY)
        page.choose(photo)
        page.ask(question, mode="force")
        answer = client.segment(photo, question, show_tokens=True)
        figures = answer.results[0].segmentation
        assert figures is not None and len(set(map(len, figures["kept_tokens"]))) == 3
        captions = [one.text for one in page.all("#panels figcaption")]
        assert captions == [
            f"layers {first}-{end - 1}: {len(kept)} of 256"
            for (first, end), kept in zip(
                figures["stage_layers"], figures["kept_tokens"], strict=True
            )
        ]
        assert page.text("cost").startswith("Policy csp:")
