"""The oracle: what unmodified LISA did on a tiny checkpoint, one `Recording` per answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vllm_csp.serving.segmenter import Question

Precision = Literal["fp32", "bf16"]
Floats = npt.NDArray[np.float32]

MISSING = "no oracle: set VLLM_CSP_ORACLE to the folder of recorded LISA outputs"
IMAGE_ROWS = 256


def oracle_folder() -> Path:
    """`VLLM_CSP_ORACLE`, or the folder beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "oracle"
    return Path(os.environ.get("VLLM_CSP_ORACLE", beside))


@cache
def read_cases() -> dict[str, Any]:
    """`cases.json`, without any case where the oracle is not at hand."""
    file = oracle_folder() / "cases.json"
    return json.loads(file.read_text()) if file.is_file() else {"cases": []}


@dataclass(frozen=True)
class Recording:
    """What LISA did for one question: a generated answer, or a row of a teacher-forced batch."""

    case: dict[str, Any]
    kind: Literal["generate", "teacher_forced"]
    row: int = 0

    def __str__(self) -> str:
        return f"{self.case['id']}-{'answer' if self.generated else f'forced{self.row}'}"

    @property
    def generated(self) -> bool:
        """Whether the model wrote the answer itself."""
        return self.kind == "generate"

    @property
    def numbers(self) -> dict[str, Any]:
        """The recorded run, both precisions."""
        return self.case[self.kind]

    @property
    def image_file(self) -> Path:
        """The picture asked about."""
        return oracle_folder() / self.case["image"]

    def image(self) -> Image.Image:
        """The picture, decoded by Pillow only."""
        return Image.open(self.image_file)

    @property
    def question_text(self) -> str:
        """What is asked, without image and template."""
        if self.generated:
            return self.case["question"]
        asked = self.numbers["prompts"][self.row].split("<im_end>\n")[1]
        return asked.split(" ASSISTANT:")[0].split(" [/INST]")[0]

    def question(self) -> Question:
        """The question as the offline engine takes it."""
        return Question(
            self.question_text,
            self.image(),
            history=[(asked, answered) for asked, answered in self.case.get("history", [])],
            mode="generate" if self.generated else "force",
            template=self.case["conv_template"],
            max_tokens=self.numbers.get("max_new_tokens", 512),
        )

    def prompt_ids(self) -> list[int]:
        """Prompt ids, -200 for the image; a forced prompt ends before its [SEG]."""
        if self.generated:
            return self.numbers["prompt_token_ids"]
        ids = self.numbers["input_ids"][self.row]
        return ids[: ids.index(read_cases()["meta"]["seg_token_id"])]

    def generated_ids(self, precision: Precision) -> list[int]:
        """Ids that greedy decoding gave."""
        return self.numbers[precision]["generated_ids"]

    def text(self, precision: Precision) -> str:
        """The answer as LISA's chat.py prints it: no `</s>`, no double spaces."""
        if not self.generated:
            return "[SEG]."
        text = self.numbers[precision]["generated_text"].replace("</s>", "")
        return " ".join(text.split())

    @property
    def image_position(self) -> int:
        """First image row."""
        return self.prompt_ids().index(-200)

    @property
    def answer_rows(self) -> slice:
        """Which of the recorded [SEG]s belong to this answer: LISA counts the history's as well."""
        if self.generated:
            return slice(self.numbers["n_seg_in_prompt"], None)
        return slice(self.row, self.row + 1)

    def masks(self, precision: Precision) -> list[dict[str, Any]]:
        """COCO RLEs of this answer's [SEG]s."""
        return [mask["rle"] for mask in self.numbers[precision]["masks"][self.answer_rows]]

    def array(self, precision: Precision, name: str) -> Floats:
        """A stored array."""
        kind = "gen" if self.generated else "tf"
        with np.load(oracle_folder() / self.case["npz"]) as stored:
            return stored[f"{precision}__{kind}__{name}"]

    def seg_array(self, precision: Precision, name: str) -> Floats:
        """A stored array with one row per [SEG], only the rows of this answer."""
        return self.array(precision, name)[self.answer_rows]

    @property
    def stored_logits(self) -> tuple[str, int]:
        """Array of the low-resolution logits, and of how many rows and columns one is stored."""
        return ("low_res_logits_stride8", 8) if self.case["id"] == "dg1" else ("low_res_logits", 1)

    def target(self) -> npt.NDArray[np.uint8]:
        """Ground truth of a forced answer: 0, 1 target, 255 ignore."""
        return np.asarray(Image.open(oracle_folder() / self.numbers["gt"][self.row]["raster"]))


def recordings() -> list[Recording]:
    """Every recorded answer, in the order of `cases.json`."""
    found: list[Recording] = []
    for case in read_cases()["cases"]:
        if "generate" in case:
            found.append(Recording(case, "generate"))
        if "teacher_forced" in case:
            rows = range(len(case["teacher_forced"]["prompts"]))
            found += [Recording(case, "teacher_forced", row) for row in rows]
    return found


def recording(name: str) -> Recording:
    """One recorded answer, such as "d01-answer" or "dg1-forced2"; skips without the oracle."""
    if not read_cases()["cases"]:
        pytest.skip(MISSING)
    return next(one for one in recordings() if str(one) == name)


def each_recording(
    wanted: Callable[[Recording], bool] = lambda one: True,
) -> pytest.MarkDecorator:
    """Parametrise `recording` over the recorded answers."""
    chosen: list[Any] = [pytest.param(one, id=str(one)) for one in recordings() if wanted(one)]
    absent = pytest.param(None, marks=pytest.mark.skip(MISSING), id="absent")
    return pytest.mark.parametrize("recording", chosen or [absent])
