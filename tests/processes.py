"""Processes that a process under test has started."""

from __future__ import annotations

import psutil


def children(number: int, *, recursive: bool = False) -> list[int]:
    """Numbers of a process's children; `recursive`: of theirs too. None once it has ended."""
    try:
        return [one.pid for one in psutil.Process(number).children(recursive=recursive)]
    except psutil.NoSuchProcess:
        return []


def command(number: int) -> str:
    """The command line, or the title that a process gave itself; empty once it has ended."""
    try:
        return " ".join(psutil.Process(number).cmdline())
    except psutil.NoSuchProcess:
        return ""


def lives(number: int) -> bool:
    """Whether a process has not ended; one that nobody has waited for has."""
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
