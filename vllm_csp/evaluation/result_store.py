"""Finished policies on disk, so that an interrupted comparison goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_csp.durable import whole_file
from vllm_csp.evaluation.outcome import PolicyResult


class ResultStore:
    """Results by policy name in a folder, each with the setting it was made with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, name: str, setting: Mapping[str, Any]) -> PolicyResult | None:
        """The stored result, if it was made with the same setting."""
        file = self._file(name)
        try:
            content = json.loads(file.read_text())
        except (OSError, ValueError):
            return None
        same = content["setting"] == json.loads(json.dumps(setting))
        return PolicyResult.from_json(content["result"]) if same else None

    def keep(self, result: PolicyResult, setting: Mapping[str, Any]) -> None:
        """Store a result; one of the same name is replaced."""
        content = json.dumps({"setting": setting, "result": result.to_json()})
        with whole_file(self._file(result.name)) as unfinished:
            unfinished.write_text(content)

    def _file(self, name: str) -> Path:
        # Names may hold anything; the digest keeps apart those that differ only in such signs.
        plain = "".join(sign if sign.isalnum() else "-" for sign in name)[:60]
        return self._folder / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def folder_state(path: str) -> list[list[Any]]:
    """Name, size and time of change of a folder's files; empty for anything else, a hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
