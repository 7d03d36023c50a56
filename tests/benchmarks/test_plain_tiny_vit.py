"""MobileSAM step by step is MobileSAM: what speed is compared with has the same embeddings."""

from __future__ import annotations

import torch

from benchmarks.plain_tiny_vit import encode_plainly
from vllm_csp.sam.tiny_vit import TinyVitEncoder


@torch.inference_mode()
def test_embeddings_are_the_same_with_norms_apart_and_folded() -> None:
    torch.manual_seed(0)
    encoder = TinyVitEncoder().eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
        if hasattr(module, "attention_biases"):
            module.attention_biases.normal_()
    pixels = torch.randn(1, 3, 1024, 1024)
    expected = encoder(pixels)
    for one in (encoder, encoder.folded()):
        found = encode_plainly(one, pixels)
        assert (found - expected).norm() < 1e-4 * expected.norm()
