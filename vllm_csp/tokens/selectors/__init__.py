"""Rules that choose image tokens: batched, fixed output size, no host synchronisation."""

from vllm_csp.tokens.selectors.attention import readout_attention_scores, spread_scores
from vllm_csp.tokens.selectors.inputs import Need, SelectionError, SelectionInputs
from vllm_csp.tokens.selectors.registry import SELECTORS, AnySelector, selector
from vllm_csp.tokens.selectors.spec import ScoreSpec, SelectorSpec

__all__ = [
    "SELECTORS",
    "AnySelector",
    "Need",
    "ScoreSpec",
    "SelectionError",
    "SelectionInputs",
    "SelectorSpec",
    "readout_attention_scores",
    "selector",
    "spread_scores",
]
