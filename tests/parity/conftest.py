"""Every oracle question asked once per precision, with what the model computed on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.oracle import Precision, Recording, read_cases, recordings
from tests.parity import probe
from vllm_csp.serving.segmenter import Answered, Segmenter

# Noted only when an image is seen for the first time.
PER_IMAGE = ("clip_pixels", "sam_pixels", "sam_embedding")


@dataclass(frozen=True)
class Run:
    """Answers and notes of one engine, by recording."""

    precision: Precision
    engine: Segmenter
    answers: dict[str, Answered] = field(default_factory=dict)
    notes: dict[str, probe.Notes] = field(default_factory=dict)

    def answer(self, recording: Recording) -> Answered:
        """What the engine answered."""
        return self.answers[str(recording)]

    def note(self, recording: Recording, name: str) -> probe.Floats:
        """What the model computed; see `probe`."""
        return self.notes[str(recording)][name]

    def seg_note(self, recording: Recording, name: str) -> probe.Floats:
        """Rows of a note on sampled tokens, those that predicted this answer's [SEG]s."""
        return self.note(recording, name)[seg_indexes(recording, self.answer(recording))]


def seg_indexes(recording: Recording, answer: Answered) -> list[int]:
    """Which output tokens have masks."""
    if not recording.generated:
        return [0]
    seg_token = read_cases()["meta"]["seg_token_id"]
    return [index for index, token in enumerate(answer.token_ids) if token == seg_token]


@pytest.fixture(scope="session")
def run_fp32(engine_fp32: Segmenter) -> Run:
    """All questions in fp32."""
    return _ask_everything(Run("fp32", engine_fp32))


@pytest.fixture(scope="session")
def run_bf16(engine_bf16: Segmenter) -> Run:
    """All questions in bf16."""
    return _ask_everything(Run("bf16", engine_bf16))


@pytest.fixture(params=["fp32", "bf16"])
def run(request: pytest.FixtureRequest) -> Run:
    """All questions, once in each precision."""
    return request.getfixturevalue(f"run_{request.param}")


def _ask_everything(run: Run) -> Run:
    llm = run.engine.llm
    # Other tests may have shown the engine the same images.
    llm.reset_mm_cache()
    llm.llm_engine.reset_encoder_cache()
    llm.apply_model(probe.attach)
    images: dict[str, probe.Notes] = {}
    for recording in recordings():
        llm.reset_prefix_cache()  # or image rows would be taken from an earlier question
        [run.answers[str(recording)]] = run.engine.ask([recording.question()])
        [notes] = llm.apply_model(probe.take)
        seen = images.setdefault(recording.case["image"], notes)
        run.notes[str(recording)] = {**{name: seen[name] for name in PER_IMAGE}, **notes}
    llm.apply_model(probe.detach)
    return run
