"""Journals survive crashes at any byte, and nothing else is mistaken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.batch.tool import read_lines
from vllm_csp.serving.batch.backlog import Backlog, InputChangedError
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.journal import BusyError, Journal, in_input_order
from vllm_csp.serving.batch.outcome import Failure, Outcome, rejected_line
from vllm_csp.serving.batch.recovery import NotAJournalError, Recovered, recover
from vllm_csp.serving.batch.row import Rejected, Row, Subject

ANSWER = {"id": "chatcmpl-1", "choices": [{"message": {"content": "[SEG].", "masks": []}}]}


def row(name: str, place: int = 0, question: str = "?") -> Row:
    return Row(name, place, {"messages": [question]}, Subject(question=question), name)


def answered(name: str, place: int = 0) -> dict[str, Any]:
    return Outcome(row(name, place), 200, ANSWER).line()


def failed(name: str, place: int = 0) -> dict[str, Any]:
    return Outcome(row(name, place), failure=Failure("timeout", "no answer")).line()


def written(path: Path, *lines: dict[str, Any]) -> Path:
    with Journal(path) as journal:
        for line in lines:
            journal.append(line)
    return path


def test_lines_come_back_as_the_rows_stand_in_the_input(tmp_path: Path) -> None:
    lines = [answered(str(place), place) for place in (3, 1, 2)]
    path = written(tmp_path / "out.jsonl", *lines)
    assert read_lines(path) == lines
    assert [line["input"]["place"] for line in in_input_order(path)] == [1, 2, 3]


def test_strange_ids_stay_what_they_are(tmp_path: Path) -> None:
    names = ["a/b\n", "é", "\ud800", " ", "0" * 512]
    path = written(tmp_path / "out.jsonl", *(answered(name) for name in names))
    index = DiskIndex()
    assert recover(path, index) == Recovered(answers=len(names))
    for name in names:
        assert list(Backlog(index).rows([row(name)])) == []


def test_a_row_that_asks_something_else_now_is_told(tmp_path: Path) -> None:
    index = DiskIndex()
    recover(written(tmp_path / "out.jsonl", answered("a")), index)
    with pytest.raises(InputChangedError, match="'a' asks something else"):
        list(Backlog(index).rows([row("a", question="Another?")]))


def test_failed_rows_are_taken_out_and_asked_again(tmp_path: Path) -> None:
    rejected = rejected_line(Rejected(2, "bad_line", "line 2 is not JSON"))
    path = written(tmp_path / "out.jsonl", answered("a"), failed("b"), rejected, answered("c"))
    index = DiskIndex()
    assert recover(path, index) == Recovered(answers=2, failures=2)
    assert [line["custom_id"] for line in read_lines(path)] == ["a", "c"]
    backlog = Backlog(index)
    left = list(backlog.rows(row(name) for name in "abc"))
    assert [one.custom_id for one in left] == ["b"]
    assert backlog.num_answered == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of three lines, written once: its ids and times differ from one to the next."""
    path = tmp_path_factory.mktemp("journal") / "out.jsonl"
    return written(path, *(answered(name) for name in "abc")).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_journal_cut_anywhere_keeps_its_whole_lines(
    tmp_path: Path, whole: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "out.jsonl"
    cut = data.draw(st.integers(0, len(whole)))
    # After a loss of power the end of a file may also be zeros.
    zeros = data.draw(st.sampled_from([b"", b"\0" * 9, b"\0\n\0\n"])) if cut else b""
    path.write_bytes(whole[:cut] + zeros)
    kept = [line for line in whole.split(b"\n")[:-1] if whole.find(line) + len(line) < cut]
    if not kept and zeros.endswith(b"\n"):
        # Not even the first line is there: no journal can be told from another file.
        with pytest.raises(NotAJournalError):
            recover(path, DiskIndex())
    else:
        assert recover(path, DiskIndex()).answers == len(kept)
        assert path.read_bytes() == b"".join(line + b"\n" for line in kept)


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\n",
        b'{"custom_id": "a"}\n',
        b"\x89PNG\r\n\x1a\n",
        b'{"id": 1}',
        b"[]",
    ],
)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    with pytest.raises(NotAJournalError, match="choose another output"):
        recover(path, DiskIndex())
    assert path.read_bytes() == content


def test_an_id_answered_twice_is_no_work_of_ours(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", answered("a"), answered("a"))
    with pytest.raises(NotAJournalError, match="answered twice"):
        recover(path, DiskIndex())


def test_two_runs_cannot_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Journal(path) as journal:
        journal.append(answered("a"))
        with pytest.raises(BusyError, match="another run writes"):
            Journal(path)
        recovered = path.with_name("new")
        recovered.write_text(json.dumps(answered("b")) + "\n")
        recovered.replace(path)
        journal.reopen()
        with pytest.raises(BusyError):
            Journal(path)
        journal.append(answered("c"))
    assert [line["custom_id"] for line in read_lines(path)] == ["b", "c"]


def test_an_empty_journal_leaves_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []
