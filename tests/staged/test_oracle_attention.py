"""LISA's own numbers: the recorded read-out attention, and its checkpoint under a staged policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.overlap import iou
from tests.oracle import Recording, each_recording, read_cases, recordings
from tests.staged.engine import running
from tests.staged.plans import Prompt
from tests.staged.policies import CSP
from tests.staged.prompts import IMAGE_TOKEN
from tests.staged.reference import Model
from tests.staged.selection import TOKENS
from vllm_csp.images import image_key, to_rgb
from vllm_csp.masks import encode_mask, unpack_mask
from vllm_csp.models.row_scorer import RowScorer

END = 2
# Scored in layer index 4, as recorded; before it nothing is left out.
PRUNED_FROM_5 = {"policy": "csp", "cluster_layers": 0, "scatter_layers": 5, "prune_tokens": 16}


@pytest.fixture(scope="module")
def reference(oracle: Path) -> Model:
    """Plain PyTorch on the oracle's checkpoint."""
    return Model(oracle / "checkpoint")


def prompt_of(recording: Recording, answer: list[int]) -> Prompt:
    """The recorded prompt and the first tokens of an answer."""
    ids: list[int] = []
    for token in [*recording.prompt_ids(), *answer]:
        ids += [IMAGE_TOKEN] * TOKENS if token == -200 else [token]
    return Prompt(tuple(ids), recording.image_position, to_rgb(recording.image()))


def seg_places(ids: list[int]) -> list[int]:
    """Where an answer says [SEG]."""
    seg = read_cases()["meta"]["seg_token_id"]
    return [place for place, token in enumerate(ids) if token == seg]


@each_recording(lambda one: one.generated and one.case["id"] in ("d01", "d04"))
def test_scores_are_the_recorded_attention(
    oracle: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every row that predicted [SEG]: a prompt that ends with it is scored by it."""
    answer = recording.generated_ids("fp32")
    places = seg_places(answer)
    recorded = recording.array("fp32", "attn_layer4_readout_image")
    assert recorded.shape == (len(places), TOKENS)
    scores: list[torch.Tensor] = []
    score = RowScorer.__call__

    def noting(self: RowScorer, *args: Any) -> None:
        score(self, *args)
        assert self.scores is not None
        scores.append(self.scores.clone())

    monkeypatch.setattr(RowScorer, "__call__", noting)
    with running(oracle / "checkpoint", PRUNED_FROM_5, max_model_len=1024) as engine:
        for place in places:
            engine.generate([prompt_of(recording, answer[:place])], max_tokens=1)
    assert len(scores) == len(places)
    found = torch.cat(scores).numpy()
    assert np.abs(found - recorded).max() <= 1e-5
    # The maximum over tokens, so that the bound above says something.
    assert recorded.max() > 1e-3


def test_answers_and_masks_under_csp(oracle: Path, reference: Model) -> None:
    """The tiny LISA pruned by csp, asked everything: reference tokens, masks of its [SEG] rows."""
    asked = [one for one in recordings() if one.generated]
    seen_masks = 0
    with running(oracle / "checkpoint", CSP.csp, max_model_len=1024) as engine:
        answers = engine.segmenter.ask([one.question() for one in asked])
        for recording, answer in zip(asked, answers, strict=True):
            prompt = prompt_of(recording, [])
            assert list(prompt.ids) == answer.prompt_token_ids
            tokens: list[int] = []
            trace = reference.run(prompt, CSP.plan)
            kept = trace.kept
            limit = recording.numbers.get("max_new_tokens", 512)
            while len(tokens) < limit and END not in tokens:
                trace = reference.run(prompt, CSP.plan, tokens, kept)
                tokens.append(int(trace.logits.argmax()))
            assert answer.token_ids == tokens
            assert prompt.image is not None
            embedding = engine.model.masks.embeddings.peek(image_key(prompt.image))
            assert embedding is not None
            places = seg_places(tokens)
            # The last row belongs to the last token, which was not fed.
            states = [trace.final[place - len(tokens)] for place in places]
            assert len(answer.masks) == len(places)
            for mask, state in zip(answer.masks, states, strict=True):
                query = reference.query(state)[None]
                [found] = engine.model.masks.decode([embedding], [query])
                expected = encode_mask(unpack_mask(found.masks[0], found.size), 0.0, 0, "rle")
                assert iou(mask, expected) >= 0.999
                seen_masks += 1
    assert seen_masks >= 5
