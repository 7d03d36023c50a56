"""Runs one benchmark cell in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "cell: "
ROOT = Path(__file__).resolve().parents[1]

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

    Raises `SystemExit` with the end of its errors when it fails.
    """
    given = dict(environment or {})
    # Found from any folder.
    paths = [given.get("PYTHONPATH"), str(ROOT), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **given, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    # The engine logs to stdout too.
    (line,) = [one for one in done.stdout.splitlines() if one.startswith(MARK)]
    return json.loads(line.removeprefix(MARK))
