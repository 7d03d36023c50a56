"""Reads pickles of plain data only: a data set must not be able to run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from vllm_csp.datasets.item import DatasetError

# Containers, numbers and texts need no name in a pickle; these few do. `__builtin__` is Python 2.
ALLOWED = {
    "__builtin__": {"complex", "frozenset", "set"},
    "builtins": {"complex", "frozenset", "set"},
    "collections": {"OrderedDict"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _bytes_of(text: str, encoding: str) -> bytes:
    """Old protocols write bytes as a call of `codecs.encode`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for bytes in {encoding}")
    return text.encode("latin1")


def read_plain_pickle(file: Path) -> Any:
    """Lists, dicts, numbers, texts and numpy arrays from a pickle file.

    Raises: `DatasetError` when it is damaged or asks for anything else, before that is run.
    """
    with file.open("rb") as stream:
        try:
            return _PlainUnpickler(stream).load()
        except Exception as error:  # Damaged pickles raise nearly any type.
            raise DatasetError(
                f"{file} is not read: {error}. Only plain data (lists, dicts, numbers, texts, "
                "numpy arrays) is taken from a pickle; convert the file to JSON if you trust it"
            ) from error
