"""Requests that the logits processor refuses before they reach the engine."""

from __future__ import annotations

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from tests.readout.readout_worker import parameters
from vllm_csp.kv.tracker import SCHEDULE_KEY, SEED_KEY
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY, ReadoutProcessor
from vllm_csp.readout.request_keys import give_key, take_back


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (SamplingParams(prompt_logprobs=1), "prompt_logprobs"),
        (SamplingParams(prompt_logprobs=0), "prompt_logprobs"),
        (
            SamplingParams(structured_outputs=StructuredOutputsParams(json_object=True)),
            "structured outputs",
        ),
        (SamplingParams(extra_args={REQUEST_KEY: ["a"]}), REQUEST_KEY),
        (SamplingParams(extra_args={REQUEST_KEY: "a client's"}), REQUEST_KEY),
        (SamplingParams(extra_args={IMAGE_KEY: "a client's"}), IMAGE_KEY),
        (SamplingParams(extra_args={SEED_KEY: "5"}), SEED_KEY),
        (SamplingParams(extra_args={SCHEDULE_KEY: 5}), SCHEDULE_KEY),
        (SamplingParams(extra_args={SCHEDULE_KEY: "{}"}), "Schedule"),
    ],
)
def test_what_would_stop_the_engine_is_refused(refused: SamplingParams, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ReadoutProcessor.validate_params(refused)


def test_ordinary_requests_are_not_refused() -> None:
    for accepted in (parameters(None), SamplingParams(logprobs=2, n=3)):
        ReadoutProcessor.validate_params(accepted)


def test_a_key_counts_until_it_is_taken_back() -> None:
    own = parameters(give_key())
    ReadoutProcessor.validate_params(own)
    assert own.extra_args is not None
    take_back(own.extra_args[REQUEST_KEY])
    with pytest.raises(ValueError, match="the server's own"):
        ReadoutProcessor.validate_params(own)
