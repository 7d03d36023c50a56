"""Shows the rows of a benchmark, keeps them, and says where they were measured."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vllm_csp.durable import whole_file
from vllm_csp.evaluation.report import write_csv

RESULTS = Path(os.environ.get("VLLM_CSP_BENCH_RESULTS", Path(__file__).parent / "results"))


def report_rows(name: str, title: str, rows: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """Print a table; write results/<name>.csv and .json; print the document as the last line.

    setting: what was run; the machine and the versions are added.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(stderr=True, width=150).print(table)
    RESULTS.mkdir(parents=True, exist_ok=True)
    # Who measures may be ended at any time.
    with whole_file(RESULTS / f"{name}.csv") as file:
        write_csv(file, rows)
    document = {"setting": {**setting, **machine()}, "rows": rows}
    with whole_file(RESULTS / f"{name}.json") as file:
        file.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def machine() -> dict[str, Any]:
    """Processor or GPU, cores, how busy they are, versions."""
    import torch

    has_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if has_gpu else _instructions(),
        "cpu_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "torch": version("torch"),
        "vllm": version("vllm"),
    }


def _instructions() -> str:
    """Of the processor: what decides how fast it computes, and in which precisions."""
    import torch

    known = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    return " ".join(known + ["AMX"] * torch.cpu._is_amx_tile_supported())
