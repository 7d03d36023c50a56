"""The end of a run, in a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def summary_table(summary: dict[str, Any]) -> Table:
    """Names and figures of a `Tally.summary`, failures one per kind."""
    table = Table(title="vllm-csp batch", show_header=False, title_justify="left")
    for name, value in summary.items():
        if name == "failures":
            for code, count in value.items():
                table.add_row(f"  {code}", f"{count:,}")
        elif value is not None:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            table.add_row(name.replace("_", " "), shown)
    return table
