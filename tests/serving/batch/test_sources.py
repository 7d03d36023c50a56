"""Rows of every kind of input."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import data_url
from tests.serving.batch.rows import QUESTION, write_lines, write_photos
from vllm_csp.serving.batch.backlog import Backlog
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.row import Rejected, Row
from vllm_csp.serving.batch.sources import request_file
from vllm_csp.serving.batch.sources.choice import InputKind, open_source
from vllm_csp.serving.batch.sources.source import Asking, Source, UsageError
from vllm_csp.serving.batch.window import grouped

SHORT = {"custom_id": "a", "image": "cat.png", "question": QUESTION}


def opened(place: Path | str, **options: Any) -> Source:
    asking = options.pop("asking", Asking("force"))
    return open_source(str(place), options.pop("kind", InputKind.AUTO), asking, **options)


def only_rows(source: Source) -> list[Row]:
    found = list(source.rows())
    assert source.count() == len(found)
    assert [row.place for row in found] == sorted(row.place for row in found)
    assert all(isinstance(row, Row) for row in found), found
    return [row for row in found if isinstance(row, Row)]


def chat_line(address: str, **fields: Any) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": QUESTION},
    ]
    body = {"model": "lisa", "messages": [{"role": "user", "content": parts}]}
    return {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
        **fields,
    }


def test_a_line_in_openais_form_is_asked_as_it_is(tmp_path: Path) -> None:
    line = chat_line("https://example.org/cat.png")
    [row] = only_rows(opened(write_lines(tmp_path / "in.jsonl", [line])))
    assert (row.custom_id, row.body, row.file) == ("a", line["body"], None)
    assert (row.subject.image, row.subject.question) == ("https://example.org/cat.png", QUESTION)


def test_a_line_in_the_short_form_becomes_a_chat(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "in.jsonl", [{**SHORT, "image_id": 7, "max_tokens": 9}])
    [row] = only_rows(opened(file))
    assert row.file == str(tmp_path / "cat.png")
    assert row.body["segmentation"] == {"mode": "force"}
    assert row.body["max_completion_tokens"] == 9
    assert row.subject.fields() == {"image": "cat.png", "question": QUESTION, "image_id": 7}


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("cat.png", "/photos/cat.png"),
        ("a/cat 1%.png", "/photos/a/cat 1%.png"),
        ("/other/cat.png", "/other/cat.png"),
        ("file:///other/cat%201.png", "/other/cat 1.png"),
        ("http://example.org/cat.png", None),
        ("HTTPS://example.org/cat.png", None),
        ("data:image/png;base64,AAAA", None),
        ("ftp://example.org/cat.png", None),
    ],
)
def test_paths_are_read_here_and_addresses_by_the_server(
    tmp_path: Path, address: str, file: str | None
) -> None:
    lines = [{**SHORT, "image": address}, {**chat_line(address), "custom_id": "b"}]
    source = opened(write_lines(tmp_path / "in.jsonl", lines), images=Path("/photos"))
    for row in only_rows(source):
        assert row.file == file
        assert row.image_key == only_rows(source)[0].image_key


def test_an_image_within_a_line_is_not_repeated_in_the_output(tmp_path: Path) -> None:
    url = data_url(b"x" * 1000)
    lines = [{**SHORT, "image": url}, {**chat_line(url), "custom_id": "b"}]
    rows = only_rows(opened(write_lines(tmp_path / "in.jsonl", lines)))
    assert [row.subject.image for row in rows] == [None, None]
    assert [row.weight for row in rows] == [len(url)] * 2
    assert rows[0].image_key == rows[1].image_key != url


BAD_LINES = {
    "no JSON": (b'{"custom_id": "a", ', "line 2 is not JSON"),
    "no UTF-8": (b"\xff\xfe\xfd", "line 2 is not JSON"),
    "a deep nest": (b"[" * 100_000, "line 2 is not JSON"),
    "a list": ([1], "line 2 is not a JSON object"),
    "no id": ({"image": "cat.png", "question": "?"}, "line 2: custom_id: Field required"),
    "an empty id": ({**SHORT, "custom_id": ""}, "at least 1 character"),
    "a number as id": ({**SHORT, "custom_id": 5}, "valid string"),
    "an unknown field": ({**SHORT, "imag": 1}, "imag: Extra inputs"),
    "an unknown mode": ({**SHORT, "mode": "x"}, "'generate' or 'force'"),
    "a huge image id": ({**SHORT, "image_id": 1 << 70}, "less than"),
    "another route": (chat_line("a.png", url="/v1/embeddings"), "'/v1/chat/completions'"),
    "another method": (chat_line("a.png", method="GET"), "'POST'"),
    "a body that is no object": ({"custom_id": "a", "body": []}, "body: "),
    "a stream": ({"custom_id": "a", "body": {"stream": True}}, "leave `stream` out"),
    "a nest that can be read": (
        b'{"custom_id": "a", "body": {"x": ' + b"[" * 100 + b"]" * 100 + b"}}",
        "line 2: more than 100 lists and objects within each other",
    ),
    "too long": (b"x" * 200_001, "is longer than"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_told_by_its_number_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Any, reason: str
) -> None:
    monkeypatch.setattr(request_file, "MOST_BYTES", 200_000)
    last = {**SHORT, "custom_id": "last"}
    source = opened(write_lines(tmp_path / "in.jsonl", [b"", line, b" ", last]))
    bad, good = source.rows()
    assert isinstance(bad, Rejected)
    assert (bad.place, bad.code) == (2, "bad_line")
    assert reason in bad.message
    assert (good.place, good.custom_id) == (4, "last")
    assert source.count() == 2


NEST = {"x": json.loads("[" * 99 + "]" * 99)}


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": 5}, {"messages": [5, {"content": [5, {"image_url": 5}]}]}, NEST],
    ids=["empty", "a number", "numbers", "a nest"],
)
def test_a_body_that_makes_no_sense_is_left_to_the_server(tmp_path: Path, body: Any) -> None:
    [row] = only_rows(
        opened(write_lines(tmp_path / "in.jsonl", [{"custom_id": "a", "body": body}]))
    )
    assert row.body == body


def test_the_second_row_of_an_id_is_rejected(tmp_path: Path) -> None:
    lines = [SHORT, {**SHORT, "question": "Another?"}, {**SHORT, "custom_id": "b"}]
    source = opened(write_lines(tmp_path / "in.jsonl", lines))
    first, second, third = Backlog(DiskIndex()).rows(source.rows())
    assert (first.custom_id, second.custom_id, third.custom_id) == ("a", None, "b")
    assert isinstance(second, Rejected)
    assert "'a' was used before, at row 1" in second.message


def test_photos_of_a_folder_and_its_folders(tmp_path: Path) -> None:
    write_photos(tmp_path, 2)
    write_photos(tmp_path / "more", 1)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    rows = only_rows(opened(tmp_path, questions=["One?", "Two?"]))
    assert [row.custom_id for row in rows] == [
        "photo-0.png#0",
        "photo-0.png#1",
        "photo-1.png#0",
        "photo-1.png#1",
        "more/photo-0.png#0",
        "more/photo-0.png#1",
    ]
    assert [row.file for row in rows[::2]] == [
        str(tmp_path / name) for name in ("photo-0.png", "photo-1.png", "more/photo-0.png")
    ]
    assert (rows[1].subject.category_id, rows[1].subject.category) == (2, "Two?")


def test_photos_of_a_pattern(tmp_path: Path) -> None:
    write_photos(tmp_path / "a", 2)
    write_photos(tmp_path / "b", 1)
    rows = only_rows(opened(f"{tmp_path}/*/photo-0.*", questions=["One?"]))
    assert [row.file for row in rows] == [str(tmp_path / one / "photo-0.png") for one in "ab"]


def coco_file(folder: Path) -> Path:
    write_photos(folder / "images", 2)
    content = {
        "images": [{"id": 10 + n, "file_name": f"photo-{n}.png"} for n in range(2)],
        "categories": [{"id": 3, "name": "cup"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "area": 1.5}
            for n, (image, category) in enumerate([(10, 5), (11, 5), (10, 3), (10, 5)])
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_coco_images_are_asked_for_the_categories_they_hold(tmp_path: Path) -> None:
    rows = only_rows(opened(coco_file(tmp_path)))
    assert [row.custom_id for row in rows] == ["10-3", "10-5", "11-5"]
    assert rows[0].file == str(tmp_path / "images" / "photo-0.png")
    assert rows[0].subject.fields() == {
        "image": "photo-0.png",
        "question": "Please segment the cup in this image.",
        "image_id": 10,
        "category_id": 3,
        "category": "cup",
    }


def test_coco_images_are_asked_own_questions(tmp_path: Path) -> None:
    questions = ["Any {category}?", "Where is the {category}?", "What is this?"]
    rows = only_rows(opened(coco_file(tmp_path), questions=questions))
    assert [row.custom_id for row in rows[:3]] == ["10-3-0", "10-5-0", "10-3-1"]
    assert [row.custom_id for row in rows if "q" in row.custom_id] == ["10-q2", "11-q2"]
    assert rows[2].subject.question == "Where is the cup?"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"images": [{"id": "a"}]}', b'{"images": [1]}'])
def test_a_json_file_that_is_not_coco_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    source = opened(tmp_path / "a.json")
    if content == b"[]":
        assert list(source.rows()) == []
        return
    with pytest.raises(UsageError, match=r"no COCO instances file|no JSON file"):
        list(source.rows())


def test_reasonseg_texts_become_lisas_questions(tmp_path: Path) -> None:
    write_photos(tmp_path, 3)
    texts = [
        {"text": ["the helmet "], "is_sentence": False, "shapes": []},
        {"text": ["Qui boit du café?", "Who drinks?"], "is_sentence": True, "shapes": []},
    ]
    for number, one in enumerate(texts):
        data = json.dumps(one, ensure_ascii=False).encode("cp1252")
        (tmp_path / f"photo-{number}.json").write_bytes(data)
    source = opened(tmp_path)
    *rows, last = source.rows()
    assert source.count() == 4
    assert [(row.custom_id, row.subject.question) for row in rows if isinstance(row, Row)] == [
        ("photo-0#0", "What is the helmet in this image? Please output segmentation mask."),
        ("photo-1#0", "Qui boit du café? Please output segmentation mask."),
        ("photo-1#1", "Who drinks? Please output segmentation mask."),
    ]
    assert isinstance(last, Rejected) and last.custom_id == "photo-2#0"


@pytest.mark.parametrize(
    ("place", "options", "reason"),
    [
        (".", {}, "add --question"),
        ("absent.jsonl", {}, "does not exist"),
        ("in.csv", {}, "say it with --input"),
        (".", {"kind": InputKind.REASONSEG, "questions": ["?"]}, "leave --question out"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused(
    tmp_path: Path, place: str, options: Any, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        opened(tmp_path / place, **options)


def test_rows_about_one_image_come_together(tmp_path: Path) -> None:
    rows = [
        {**SHORT, "custom_id": str(number), "image": f"{number % 3}.png"} for number in range(9)
    ]
    source = opened(write_lines(tmp_path / "in.jsonl", rows))

    def ids(look_ahead: int, max_bytes: int = 1) -> list[str]:
        groups = grouped(source.rows(), look_ahead, max_bytes)
        return ["".join(str(row.custom_id) for row in one) for one in groups]  # type: ignore[union-attr]

    assert ids(9) == ["036", "147", "258"]
    assert ids(4) == ["03", "14", "25", "6", "7", "8"]
    assert ids(1) == list("012345678")


def test_large_images_within_rows_shorten_the_look_ahead(tmp_path: Path) -> None:
    url = [data_url(bytes([number]) * 1000) for number in range(3)]
    rows = [{**SHORT, "custom_id": str(n), "image": url[n % 3]} for n in range(9)]
    source = opened(write_lines(tmp_path / "in.jsonl", rows))
    assert len(list(grouped(source.rows(), 100, max_bytes=10_000_000))) == 3
    assert len(list(grouped(source.rows(), 100, max_bytes=100))) == 9


@pytest.mark.parametrize("num_rows", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_many_rows_need_no_more_memory_than_the_look_ahead(tmp_path: Path, num_rows: int) -> None:
    """A row takes 2 kB, 20,000 of them 40 MB."""
    file = tmp_path / "in.jsonl"
    with file.open("w") as lines:
        for number in range(num_rows):
            row = {**SHORT, "custom_id": f"row-{number}", "image": f"{number}.png"}
            lines.write(json.dumps(row) + "\n")
    backlog = Backlog(DiskIndex())
    count = 0
    tracemalloc.start()
    try:
        for group in grouped(backlog.rows(opened(file).rows()), look_ahead=512):
            count += len(group) if isinstance(group, list) else 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == num_rows
    assert peak < 4 << 20
