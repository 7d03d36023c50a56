"""Which format an output has."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from vllm_csp.serving.batch.formats.coco_dataset import write_coco_dataset
from vllm_csp.serving.batch.formats.coco_results import write_coco_results
from vllm_csp.serving.batch.formats.mask_folder import write_mask_folder
from vllm_csp.serving.batch.formats.parquet import write_parquet
from vllm_csp.serving.batch.sources.source import ImageIds, UsageError


class OutputFormat(StrEnum):
    """What the second argument of `vllm-csp batch` becomes."""

    AUTO = "auto"
    JSONL = "jsonl"
    COCO = "coco"
    COCO_RESULTS = "coco-results"
    MASKS = "masks"
    PARQUET = "parquet"


WRITERS: dict[OutputFormat, Callable[[Path, Path], None]] = {
    OutputFormat.COCO: write_coco_dataset,
    OutputFormat.COCO_RESULTS: write_coco_results,
    OutputFormat.MASKS: write_mask_folder,
    OutputFormat.PARQUET: write_parquet,
}
"""Each makes an output of a journal; JSON lines are the journal itself."""


def choose_format(output: Path, asked: OutputFormat, image_ids: ImageIds) -> OutputFormat:
    """The format asked for, or the one that the output's name stands for.

    Raises `UsageError` when it stands for none or cannot be written.
    """
    chosen = _by_name(output, image_ids) if asked == OutputFormat.AUTO else asked
    if chosen == OutputFormat.COCO_RESULTS and image_ids == "none":
        raise UsageError("COCO results need the image ids of a COCO input: take --format coco")
    if chosen == OutputFormat.PARQUET and find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow: pip install pyarrow")
    return chosen


def _by_name(output: Path, image_ids: ImageIds) -> OutputFormat:
    # Results only say something beside the dataset whose ids they use.
    coco = OutputFormat.COCO_RESULTS if image_ids == "all" else OutputFormat.COCO
    names = {
        ".jsonl": OutputFormat.JSONL,
        ".ndjson": OutputFormat.JSONL,
        ".json": coco,
        ".parquet": OutputFormat.PARQUET,
        "": OutputFormat.MASKS,
    }
    if output.suffix not in names:
        raise UsageError(
            f"cannot tell the format of {output}: name it .jsonl, .json (COCO), .parquet or, for a "
            "folder of PNG masks, without a suffix; or say it with --format"
        )
    return names[output.suffix]
