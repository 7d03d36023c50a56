"""How far a run is: what it understands of held-out scenes, without decoding a mask."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

import torch

from vllm_csp.scenes import make_sample
from vllm_csp.training.packing import Packer
from vllm_csp.training.questions import from_scene
from vllm_csp.training.stream import SCENE_SIZE
from vllm_csp.training.student import Student
from vllm_csp.training.targets import LOGITS


@torch.inference_mode()
def probe(student: Student, packer: Packer, seeds: Iterable[int]) -> list[dict[str, float | str]]:
    """Per kind of question about scenes of the split `val`: read-outs, and shares of them.

    grid: the strongest patch of the grid is at least half target. place: the place is in the
    target. look: the last supervised head looks more at the target than elsewhere in the image.
    """
    hits: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    student.eval()
    for seed in seeds:
        sample = make_sample(seed, "val", size=SCENE_SIZE)
        kinds = {question.text: question.kind for question in sample.questions}
        picture = from_scene(sample, len(kinds), {}, random.Random(seed), None)
        batch = packer.pack([picture])
        with torch.autocast("cpu", torch.bfloat16):
            prediction = student(batch, packer.before_image, packer.after_image)
        names = [kinds[asked.text] for asked in picture.questions]
        looks = prediction.looks[student.shape.target_heads[-1]].float()
        for number, row in enumerate(batch.row):
            grid = batch.grid[number].flatten()
            best = grid[prediction.grids[number].flatten().argmax()] >= 0.5
            x, y = (prediction.places[number].clamp(0, 1 - 1e-6) * LOGITS).long()
            inside = batch.frame[number][y, x] == 1
            look = looks[0, row]
            looked = (look * (grid > 0.2)).sum() > 0.5 * look.sum()
            name = names[int(batch.owner[0, row])]
            hits[name].append((float(best), float(inside), float(looked)))
    hits["all"] = [hit for kind in sorted(hits) for hit in hits[kind]]
    return [
        {"kind": kind, "read_outs": len(found), **_means(found)}
        for kind, found in sorted(hits.items())
    ]


def _means(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    columns = zip(("grid", "place", "look"), zip(*rows, strict=True), strict=True)
    return {name: round(sum(column) / len(column), 3) for name, column in columns}
