"""Selectors by name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from vllm_csp.tokens.selectors.attention import Attention, Cls, Feather
from vllm_csp.tokens.selectors.divprune import DivPrune
from vllm_csp.tokens.selectors.grid import All, Grid, Uniform
from vllm_csp.tokens.selectors.prumerge import PruMerge, PruMergePlus
from vllm_csp.tokens.selectors.random import Random
from vllm_csp.tokens.selectors.resprune import ResPrune
from vllm_csp.tokens.selectors.seg_first import SegFirst
from vllm_csp.tokens.selectors.spec import SelectorSpec

SELECTORS: dict[str, type[SelectorSpec]] = {
    "all": All,
    "uniform": Uniform,
    "grid": Grid,
    "random": Random,
    "cls": Cls,
    "seg_first": SegFirst,
    "attention": Attention,
    "feather": Feather,
    "prumerge": PruMerge,
    "prumerge+": PruMergePlus,
    "resprune": ResPrune,
    "divprune": DivPrune,
}


def selector(name: str, **params: Any) -> SelectorSpec:
    """The selector of that name with validated parameters.

    Raises:
        ValueError: the name is unknown, or a parameter does not fit (pydantic.ValidationError).
    """
    if name not in SELECTORS:
        raise ValueError(f"unknown selector '{name}'; choose one of {', '.join(SELECTORS)}")
    return SELECTORS[name](name=name, **params)


def _parse(value: object) -> object:
    if isinstance(value, str):
        return selector(value)
    if isinstance(value, dict):
        params = dict(value)
        name = params.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(
                "a selector needs a name, such as {'name': 'grid'}; "
                f"choose one of {', '.join(SELECTORS)}"
            )
        return selector(name, **params)
    return value


AnySelector = Annotated[SerializeAsAny[SelectorSpec], BeforeValidator(_parse)]
"""Field type: a selector, its name, or ``{"name": ..., parameter: ...}``."""
