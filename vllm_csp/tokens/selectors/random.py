"""A random choice that is a function of the request's seed alone."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionInputs
from vllm_csp.tokens.selectors.ranking import keep_best
from vllm_csp.tokens.selectors.spec import SelectorSpec

_WORD = 0xFFFFFFFF


def _mix(word: Tensor) -> Tensor:
    # A 32-bit finaliser held in int64: products wrap modulo 2**64, of which the low word is exact.
    word = ((word ^ (word >> 16)) * 0x45D9F3B) & _WORD
    word = ((word ^ (word >> 16)) * 0x45D9F3B) & _WORD
    return word ^ (word >> 16)


def random_keys(seeds: Tensor, num_tokens: int) -> Tensor:
    """A pseudo-random 32-bit key per token: [B, num_tokens] int64, from seeds [B] int64.

    Counter-based, so a request's keys depend neither on the batch nor on the device, and no
    generator state has to be kept per request.
    """
    low = _mix(seeds & _WORD)
    seed = _mix((seeds >> 32 & _WORD) ^ low)
    token = torch.arange(1, num_tokens + 1, device=seeds.device)
    return _mix(_mix(token * 0x9E3779B9 & _WORD) ^ seed[:, None])


class Random(SelectorSpec):
    """``budget`` tokens uniformly at random without replacement, by the request's seed.

    seed_per: "request" draws anew for each request; "image" states that the caller derives the
        seed from the image, which makes the choice safe for prefix caching.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"seeds"})

    name: Literal["random"] = "random"
    seed_per: Literal["request", "image"] = "request"

    @property
    def depends_on_question(self) -> bool:
        """True when the seed belongs to the request."""
        return self.seed_per == "request"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        return keep_best(
            random_keys(inputs.get("seeds", self.name), inputs.num_image_tokens), budget
        )
