"""Where this project keeps what it can make again: logs, small checkpoints, work of benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-csp"
