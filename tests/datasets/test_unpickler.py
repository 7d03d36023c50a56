"""A data set's pickle holds data; anything else is refused before it runs."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vllm_csp.datasets.item import DatasetError
from vllm_csp.datasets.unpickler import read_plain_pickle


class Call:
    """Unpickling one calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    data = [{"a": [1, 2.5, "é", None, True], "b": (1, {2}), "c": OrderedDict(x=np.int64(3))}]
    (tmp_path / "data.p").write_bytes(pickle.dumps(data, protocol))
    assert read_plain_pickle(tmp_path / "data.p") == data


def test_arrays_come_back(tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3)
    (tmp_path / "data.p").write_bytes(pickle.dumps(array, 2))
    assert np.array_equal(read_plain_pickle(tmp_path / "data.p"), array)


@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch {mark}"),
        Call(subprocess.check_call, ["touch", "{mark}"]),
        Call(eval, "open('{mark}', 'w')"),
        Call(getattr, "{mark}", "join"),
        Call(open, "{mark}", "w"),
    ],
    ids=["os.system", "subprocess", "eval", "getattr", "open"],
)
def test_calls_are_refused_and_not_made(tmp_path: Path, call: Call) -> None:
    mark = tmp_path / "mark"
    function, arguments = call.call
    filled = [
        [part.format(mark=mark) for part in one] if isinstance(one, list) else one
        for one in arguments
    ]
    filled = [one.format(mark=mark) if isinstance(one, str) else one for one in filled]
    (tmp_path / "data.p").write_bytes(pickle.dumps([{"sent": Call(function, *filled)}], 2))
    with pytest.raises(DatasetError, match="Only plain data"):
        read_plain_pickle(tmp_path / "data.p")
    assert not mark.exists()


def test_attributes_of_allowed_names_are_refused(tmp_path: Path) -> None:
    """`STACK_GLOBAL` may ask for dotted names."""
    stolen = b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__class____\x93."
    (tmp_path / "data.p").write_bytes(stolen)
    with pytest.raises(DatasetError):
        read_plain_pickle(tmp_path / "data.p")


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.p").write_bytes(pickle.dumps(["x" * 50])[:-20])
    with pytest.raises(DatasetError, match=r"data\.p is not read"):
        read_plain_pickle(tmp_path / "data.p")
