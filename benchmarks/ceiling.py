"""What a machine could do at best: its own rates, and what a request costs in operations and bytes.

Every benchmark prints this card before it measures. Rates are measured, not looked up: the fastest
of several matrix products and of several copies. MFU is operations per second over the former, MBU
bytes per second over the latter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Rates:
    """Of one machine and dtype: operations and bytes per second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Part:
    """One part of a request: operations, and the bytes that must be read at least."""

    name: str
    flop: float
    bytes: float

    def seconds(self, rates: Rates) -> float:
        """The time that it cannot go below."""
        return max(self.flop / rates.flops, self.bytes / rates.bytes)

    def row(self, rates: Rates) -> dict[str, Any]:
        """For the card."""
        compute, memory = self.flop / rates.flops, self.bytes / rates.bytes
        return {
            "part": self.name,
            "tflop": round(self.flop / 1e12, 5),
            "gb": round(self.bytes / 1e9, 4),
            "at_best_ms": round(1e3 * max(compute, memory), 3),
            "bound_by": "operations" if compute >= memory else "bytes",
        }


@dataclass(frozen=True)
class Model:
    """Sizes of a LISA checkpoint that decide its costs."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    vocabulary: int = 32004
    image_tokens: int = 256

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices."""
        return self.hidden * (4 * self.hidden + 3 * self.ffn)


def llm_prefill(model: Model, text_tokens: int, dtype: str, schedule: Any = None) -> Part:
    """One prompt through the decoder; with `schedule` through its stages."""
    from vllm_csp.tokens import policy
    from vllm_csp.tokens.accounting import DecoderShape, prefill_flops

    schedule = schedule or policy("dense", model.layers, model.image_tokens)
    head = model.hidden // model.heads
    shape = DecoderShape(model.hidden, model.ffn, model.heads, model.heads, head)
    flop = prefill_flops(schedule, shape, text_tokens).total + 2 * model.hidden * model.vocabulary
    weights = model.layers * model.layer_weights + model.hidden * model.vocabulary
    return Part("LLM prefill", flop, weights * BYTES[dtype])


def llm_decode(model: Model, context: int, dtype: str, batch: int = 1) -> Part:
    """One step of `batch` answers: all weights and all keys and values are read."""
    weights = model.layers * model.layer_weights + model.hidden * model.vocabulary
    attention = 4 * model.layers * context * model.hidden
    cache = 2 * model.layers * context * model.hidden
    return Part(
        f"LLM step of {batch}",
        batch * (2 * weights + attention),
        (weights + batch * cache) * BYTES[dtype],
    )


def sam_encoder(geometry: Any, dtype: str) -> Part:
    """SAM's encoder on one image, as `build_encoder` makes it."""
    from vllm_csp.sam.encoder_kind import build_encoder

    return counted("SAM encoder", lambda: build_encoder(geometry), geometry.image_size, dtype)


def clip_tower(config: Any, dtype: str) -> Part:
    """CLIP on one image."""
    from transformers import CLIPVisionModel

    return counted("CLIP", lambda: CLIPVisionModel(config), config.image_size, dtype)


def counted(name: str, build: Callable[[], Any], side: int, dtype: str) -> Part:
    """Operations of a network on one square image, counted on the meta device, and its weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network = build().eval()
        network(torch.empty(1, 3, side, side))
    weights = sum(weight.numel() for weight in network.parameters())
    return Part(name, counter.get_total_flops(), weights * BYTES[dtype])


def measured_rates(dtype: str, seconds: float = 2.0) -> Rates:
    """The best of what this machine does in about `seconds`."""
    import torch

    if not torch.cuda.is_available():
        return _rates("cpu", getattr(torch, dtype), seconds, (1024, 2048), 1 << 27)
    found = _rates("cuda", getattr(torch, dtype), seconds, (4096, 8192), 1 << 30)
    torch.cuda.empty_cache()  # Its memory is for the processes that are measured.
    return found


def _rates(
    device: str, dtype: torch.dtype, seconds: float, sides: Sequence[int], num_bytes: int
) -> Rates:
    import torch

    best_flops = 0.0
    with torch.inference_mode():
        for side in sides:
            # Numbers all alike would be multiplied faster on a GPU, whose clock follows its power.
            left, right = torch.randn(2, side, side, device=device, dtype=dtype)
            spent = _fastest(lambda a=left, b=right: a @ b, device, seconds / 4)
            best_flops = max(best_flops, 2 * side**3 / spent)
            if spent > seconds:  # A precision without instructions; a larger product takes minutes.
                break
        block = torch.ones(num_bytes, dtype=torch.uint8, device=device)
        target = torch.empty_like(block)
        spent = _fastest(lambda: target.copy_(block), device, seconds / 2)
    return Rates(best_flops, 2 * num_bytes / spent)


def _fastest(run: Callable[[], Any], device: str, seconds: float) -> float:
    """Seconds of the fastest run in about `seconds`, of at least one."""
    import torch

    def timed() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    until = time.perf_counter() + seconds
    best = timed()
    while time.perf_counter() < until:
        best = min(best, timed())
    return best


def print_card(parts: list[Part], rates: Rates, title: str) -> dict[str, Any]:
    """Print the ceiling on stderr; returns it, for the results' `setting`."""
    from rich.console import Console
    from rich.table import Table

    rows = [part.row(rates) for part in parts]
    whole = sum(part.seconds(rates) for part in parts)
    table = Table(
        title=f"{title}: at most {1 / whole:.3g} per second "
        f"({rates.flops / 1e12:.3g} TFLOP/s, {rates.bytes / 1e9:.3g} GB/s measured)"
    )
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(stderr=True, width=120).print(table)
    return {
        "tflops": round(rates.flops / 1e12, 4),
        "gbytes_per_second": round(rates.bytes / 1e9, 3),
        "at_most_per_second": round(1 / whole, 4),
        "parts": rows,
    }
