"""Runs one benchmark cell in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

MARK = "cell: "
ROOT = Path(__file__).resolve().parents[1]
LOGS = RESULTS / "logs"

# What `vllm_csp.allocator` does, for glibc in a process that does not load LISA.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


def report_cell(result: Any) -> None:
    """Called in the cell's process: hand `result` (JSON) to `run_cell`."""
    print(MARK + json.dumps(result), flush=True)


def run_cell(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Any:
    """Run `python -m module arguments`; gives what it reported.

    Raises `SystemExit` with the end of what it said when it fails.
    """
    given = dict(environment or {})
    # Found from any folder.
    paths = [given.get("PYTHONPATH"), str(ROOT), os.environ.get("PYTHONPATH")]
    LOGS.mkdir(parents=True, exist_ok=True)
    # It stays where the cell fails, or is ended from outside with this process.
    handle, name = tempfile.mkstemp(".log", f"{module}-", LOGS)
    with os.fdopen(handle, "a+") as log:
        code = subprocess.call(
            [sys.executable, "-m", module, *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, **given, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        log.seek(0)
        said = log.read()
    if code:
        raise SystemExit(f"{module} {' '.join(arguments)} failed ({name}):\n{said[-3000:]}")
    Path(name).unlink()
    # The engine logs, too.
    (line,) = [one for one in said.splitlines() if one.startswith(MARK)]
    return json.loads(line.removeprefix(MARK))
