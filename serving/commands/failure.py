"""How a command ends that could not do what was asked."""

from __future__ import annotations

import typer
from rich.markup import escape

from vllm_csp.serving.commands.standard_error import new_console

console = new_console()


def failed(error: Exception, code: int = 1) -> typer.Exit:
    """Say why, on standard error; to be raised, and ends the program with `code`."""
    # Messages may hold brackets, which are markup to rich.
    console.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
    return typer.Exit(code)
