"""Published checkpoints of both sizes."""

from __future__ import annotations

import pytest

from tests.models.published import SIZES, Published, Size, write_published, write_tokenizer
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.plugin import register


@pytest.fixture(scope="session", params=SIZES)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """LISA-7B-v1 and LISA-13B-llama2-v1, without the values of their weights."""
    size: Size = request.param
    return write_published(tmp_path_factory.mktemp(f"lisa-{size}"), size)


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[Size, LisaTokenizer]:
    """The tokenizers of both sizes."""
    found: dict[Size, LisaTokenizer] = {}
    for size in SIZES:
        folder = tmp_path_factory.mktemp(f"tokenizer-{size}")
        write_tokenizer(folder, size)
        found[size] = LisaTokenizer.from_pretrained(folder)
    return found


@pytest.fixture(autouse=True, scope="session")
def plugin() -> None:
    """What vLLM does in every process."""
    register()
