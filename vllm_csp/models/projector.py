"""The two small networks between the language model and the image parts.

Attribute paths are those of the published weights (`mm_projector.*`, `text_hidden_fcs.0.*`).
"""

from __future__ import annotations

from torch import nn

from vllm_csp.models.config import LisaConfig


def build_projector(config: LisaConfig) -> nn.Module:
    """CLIP features -> language model rows: one linear layer, or LLaVA-1.5's two with GELU.

    Raises `ValueError` for a projector type that LISA's family does not use.
    """
    hidden = config.text_config.hidden_size
    if config.mm_projector_type == "linear":
        return nn.Linear(config.mm_hidden_size, hidden)
    if config.mm_projector_type == "mlp2x_gelu":
        return nn.Sequential(
            nn.Linear(config.mm_hidden_size, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
    raise ValueError(
        f"mm_projector_type {config.mm_projector_type!r} is unknown; linear or mlp2x_gelu expected"
    )


def build_text_hidden_fcs(config: LisaConfig) -> nn.ModuleList:
    """Hidden state of a read-out row -> mask query [out_dim] (LISA's `text_hidden_fcs`)."""
    return nn.ModuleList([query_head(config.text_config.hidden_size, config.out_dim)])


def query_head(hidden: int, out_dim: int) -> nn.Sequential:
    """The only one of LISA's `text_hidden_fcs`."""
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))
