"""A recorder with its processor, and requests to take part in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from tests.readout.lookup import queries
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY, ReadoutProcessor
from vllm_csp.readout.recorder import Recorder
from vllm_csp.readout.store import ReadoutStore

VOCABULARY = 8


def parameters(key: str | None) -> SamplingParams:
    extra = None if key is None else {REQUEST_KEY: key, IMAGE_KEY: "image"}
    return SamplingParams(extra_args=extra)


@dataclass
class Worker:
    """A recorder and its processor; `step` plays one engine step."""

    recorder: Recorder
    processor: ReadoutProcessor

    def step(self, values: Sequence[float], context: LogitsContext | None = None) -> None:
        """Sample from rows whose hidden state is `values`."""
        self.recorder.see(torch.tensor(values).unsqueeze(1))
        logits = torch.randn(len(values), VOCABULARY)
        before = logits.clone()
        after = self.processor.apply(logits) if context is None else self._apply(logits, context)
        assert torch.equal(after, before)

    def _apply(self, logits: torch.Tensor, context: LogitsContext) -> torch.Tensor:
        return self.processor.apply(logits, context)

    def values(self, key: str, tokens: Sequence[int]) -> list[float] | None:
        """Hidden states that predicted `tokens`."""
        found = queries(self.recorder.store, key, tokens, range(len(tokens)))
        return None if found is None else found[:, 0].tolist()


def worker(*runner_arguments: Any) -> Worker:
    store = ReadoutStore(lambda key: None, lambda key: None)
    recorder = Recorder("an engine", lambda rows: rows, store)
    config: Any = SimpleNamespace(instance_id="an engine")
    return Worker(recorder, ReadoutProcessor(config, *runner_arguments))
