"""Questions in, scores out; the answers come from someone who knows what is right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vllm_csp.datasets.item import Item, Photo, Raster
from vllm_csp.evaluation.asker import Asked, Reply
from vllm_csp.evaluation.outcome import PolicyResult, same_text
from vllm_csp.evaluation.policy_run import PolicyRun
from vllm_csp.evaluation.report import kind_rows, policy_rows
from vllm_csp.evaluation.runner import Pace, Runner
from vllm_csp.masks import encode_mask

COST = {"mean_visual_tokens_per_layer": 88.0, "flops_ratio": 0.5, "kv_blocks": [2, 3, 1, 1]}
ANSWERS = {0: "It is not there.", 1: "It is [SEG].", 2: "They are [SEG] and [SEG]."}
SIZE = (6, 8)


def disc(number: int) -> Raster:
    raster = np.zeros(SIZE, np.uint8)
    raster[: 2 + number] = 1
    return raster


def photos(folder: Path, counts: Sequence[int] = (0, 1, 2)) -> list[Photo]:
    """Three photos, on each a question with no, one and two targets."""
    made = []
    for photo in range(3):
        path = folder / f"{photo}.png"
        Image.new("RGB", (SIZE[1], SIZE[0]), (photo, 0, 0)).save(path)
        items = [
            Item(
                key=f"{photo}/{count}",
                question=f"{photo}/{count}",
                kind=f"{count} targets",
                num_masks=count,
                rasters=partial(list, [disc(one) for one in range(count)]),
                answer=ANSWERS[count],
            )
            for count in counts
        ]
        made.append(Photo(path, partial(list, items)))
    return made


class Knowing:
    """Answers rightly; `but` changes the number of masks for some questions."""

    def __init__(self, **but: int) -> None:
        self.but = but
        self.batches: list[list[Asked]] = []

    def ask(self, questions: Sequence[Asked]) -> list[Reply]:
        """By the question's name."""
        self.batches.append(list(questions))
        return [self._reply(one.text) for one in questions]

    def close(self) -> None:
        """Nothing is held."""

    def _reply(self, text: str) -> Reply:
        count = int(text[2:]) if text[1:2] == "/" else 0
        count = self.but.get(f"q{text.replace('/', '_')}", count)
        masks = [encode_mask(disc(n) == 1, 1.0, n, "rle") for n in range(count)]
        return Reply(ANSWERS[count].replace(".", " ."), masks, COST)


def run(folder: Path, asker: Knowing, *, forced: bool = False, **options: Pace) -> PolicyResult:
    [result] = Runner(asker, [PolicyRun("p")], forced=forced, **options).run(photos(folder))
    return result


def test_right_answers_are_perfect(tmp_path: Path) -> None:
    [row] = policy_rows([run(tmp_path, Knowing())])
    assert (row["images"], row["questions"], row["masks"]) == (3, 9, 9)
    assert row["giou"] == pytest.approx(1, abs=1e-5)
    assert row["ciou"] == pytest.approx(1)
    names = ("right_number", "right_text", "absent_noticed", "present_missed")
    assert [row[name] for name in names] == [1, 1, 1, 0]
    assert (row["mean_visual_tokens"], row["kv_blocks"], row["kv_groups"]) == (88, 7, 4)
    assert row["questions_per_second"] > 0


def test_a_missing_mask_counts_as_empty_and_a_surplus_one_as_a_wrong_number(
    tmp_path: Path,
) -> None:
    result = run(tmp_path, Knowing(q0_2=1, q1_1=2, q2_0=1))
    [row] = policy_rows([result])
    assert row["giou"] == pytest.approx(8 / 9, abs=1e-5)
    assert row["right_number"] == pytest.approx(6 / 9, abs=1e-4)
    assert row["absent_noticed"] == pytest.approx(2 / 3, abs=1e-4)
    kinds = {one["kind"]: one for one in kind_rows([result])}
    assert kinds["2 targets"]["giou"] == pytest.approx(5 / 6, abs=1e-5)
    assert (kinds["0 targets"]["masks"], kinds["0 targets"]["giou"]) == (0, "")
    assert kinds["0 targets"]["right_text"] == pytest.approx(2 / 3, abs=1e-4)


def test_a_missed_target_is_counted(tmp_path: Path) -> None:
    [row] = policy_rows([run(tmp_path, Knowing(q1_1=0))])
    assert row["present_missed"] == pytest.approx(1 / 6, abs=1e-4)


def test_force_asks_only_for_one_target(tmp_path: Path) -> None:
    result = run(tmp_path, Knowing(), forced=True)
    assert [one.key for one in result.outcomes] == ["0/1", "1/1", "2/1"]
    assert result.skipped == 6
    assert policy_rows([result])[0]["right_number"] == ""  # not the model's answers


def test_questions_about_a_photo_stay_together(tmp_path: Path) -> None:
    asker = Knowing()
    run(tmp_path, asker, pace=Pace(photos=2, questions=4))
    asked = [one.text for batch in asker.batches[1:] for one in batch]  # after the warm-up
    assert asked == [f"{photo}/{count}" for photo in range(3) for count in range(3)]
    assert max(len(batch) for batch in asker.batches) == 4


def test_policies_that_share_an_engine_take_turns_and_tell_no_speed(tmp_path: Path) -> None:
    asker, runs = Knowing(), [PolicyRun("a"), PolicyRun("b", image_scale=0.5)]
    results = Runner(asker, runs, forced=False, pace=Pace(photos=1)).run(photos(tmp_path))
    assert [batch[0].number for batch in asker.batches[1:]] == [0, 1] * 3
    unchanged, shrunk = asker.batches[1][0], asker.batches[2][0]
    assert unchanged.file is not None
    assert shrunk.file is None
    assert unchanged.image.size == shrunk.image.size
    assert [one.seconds for one in results] == [None, None]
    rows = policy_rows(results)
    assert rows[1]["questions_per_second"] == ""
    assert (rows[1]["giou_gain"], rows[1]["gain_low"], rows[1]["gain_high"]) == (0, 0, 0)


def test_results_survive_json(tmp_path: Path) -> None:
    result = run(tmp_path, Knowing(q0_2=1))
    assert PolicyResult.from_json(result.to_json()) == result


def test_policies_over_different_questions_are_not_compared(tmp_path: Path) -> None:
    everything, forced = run(tmp_path, Knowing()), run(tmp_path, Knowing(), forced=True)
    with pytest.raises(ValueError, match="different questions"):
        policy_rows([everything, forced])


def test_ground_truth_of_another_size_names_the_question(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    wrong = Item("a", "0/1", "k", 1, lambda: [np.zeros((3, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"question a about a\.png"):
        Runner(Knowing(), [PolicyRun("p")], forced=True).run([Photo(path, lambda: [wrong])])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It is [SEG] .", "It is [SEG].", True),
        (" It  is [SEG].", "It is [SEG].", True),
        ("Sure, [SEG] .", "Sure , [SEG].", True),
        ("It is [SEG].", "It is [SEG] [SEG].", False),
    ],
)
def test_answers_are_compared_but_for_spacing(one: str, other: str, same: bool) -> None:
    assert same_text(one, other) is same
