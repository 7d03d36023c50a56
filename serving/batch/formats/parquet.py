"""A Parquet file with one row per row of the input, failed ones too."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from vllm_csp.durable import whole_file
from vllm_csp.masks import coco_rle
from vllm_csp.serving.batch.journal import in_input_order
from vllm_csp.serving.batch.outcome import masks_of, succeeded

ROWS_PER_GROUP = 4096


def write_parquet(journal: Path, output: Path) -> None:
    """Columns: custom_id, image, image_id, category_id, category, question, answer, masks, error.

    masks: list of {size [height, width], counts (COCO RLE), bbox, area, score, seg_index}.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema()
    with (
        whole_file(output) as partial,
        parquet.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        rows = (_row(line) for line in in_input_order(journal))
        while group := list(islice(rows, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _schema() -> Any:
    import pyarrow as pa

    mask = pa.struct(
        {
            "size": pa.list_(pa.int32(), 2),
            "counts": pa.string(),
            "bbox": pa.list_(pa.int32(), 4),
            "area": pa.int64(),
            "score": pa.float64(),
            "seg_index": pa.int32(),
        }
    )
    return pa.schema(
        {
            "custom_id": pa.string(),
            "image": pa.string(),
            "image_id": pa.int64(),
            "category_id": pa.int64(),
            "category": pa.string(),
            "question": pa.string(),
            "answer": pa.string(),
            "masks": pa.list_(mask),
            "error": pa.string(),
        }
    )


def _row(line: dict[str, Any]) -> dict[str, Any]:
    row = {"custom_id": line["custom_id"], **line["input"]}
    if not succeeded(line):
        return _writable({**row, "error": line["error"]["message"]})
    body = line["response"]["body"]
    masks = [{**mask, **coco_rle(mask)} for mask in masks_of(body)]
    return _writable({**row, "answer": body["choices"][0]["message"]["content"], "masks": masks})


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without lone surrogates, which stand for names of files that are not UTF-8.

    Parquet has UTF-8 only, so they are written as JSON escapes them.
    """
    return {name: _utf8(value) if isinstance(value, str) else value for name, value in row.items()}


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
