"""SAMs to test with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.sam.oracle_sam import OracleSam
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.vit_geometry import VitGeometry

SMALL = VitGeometry(
    image_size=64,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    out_channels=256,
    window_size=3,
    global_attention_indexes=(1,),
)


@pytest.fixture(scope="session")
def oracle_sam(oracle: Path) -> OracleSam:
    """That of the oracle; the test is skipped where it is not at hand."""
    return OracleSam(oracle)


@pytest.fixture
def small_sam() -> Callable[[], Sam]:
    """Makes random SAMs of 64 pixels and 8 x 8 patches, the same each time."""

    def make() -> Sam:
        torch.manual_seed(0)
        sam = Sam(SMALL).eval()
        for weight in sam.parameters():
            weight.data.normal_(std=0.1)
        return sam

    return make


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    """Inference only."""
    with torch.no_grad():
        yield
