"""The command `vllm-csp bench`: the benchmarks of a checkout of this project."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import typer

BENCHMARKS = {
    "prefill": "Prompts per second of the policies, and of vLLM's stock LLaVA.",
    "encode": "Seconds per image of SAM's and CLIP's image encoders, and of segment-anything.",
    "decode-masks": "Milliseconds per mask, batched, and in a loop over images.",
    "e2e": "Questions per second over HTTP, beside LISA's loop and Hugging Face's generate.",
    "growth": "Questions per second as clients, questions, image tokens and answers grow.",
    "waterfall": "Where a request's time goes.",
    "client-files": "Photos and questions for `vllm bench serve --dataset-name custom_image`.",
    "gpu": "Everything a GPU is asked, within a time limit, resumable.",
}

bench = typer.Typer(
    help="Measure speed: tables, JSON and plots in benchmarks/results of a checkout.",
    no_args_is_help=True,
)


def find_benchmarks() -> Path:
    """The folder that holds the package `benchmarks`.

    Raises `typer.BadParameter` when this is no checkout: results, their log and their plots belong
    to one, so the wheel has no benchmarks.
    """
    import vllm_csp

    for folder in (Path(vllm_csp.__file__).parents[1], Path.cwd()):
        if (folder / "benchmarks" / "cells.py").is_file():
            return folder
    raise typer.BadParameter("benchmarks come with a checkout of the project: run this in one")


def _command(name: str, help_text: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        folder = str(find_benchmarks())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        module.main(context.args)

    run.__doc__ = help_text
    return run


for _name, _help in BENCHMARKS.items():
    # Each benchmark has its own options and --help, the same as `python -m benchmarks.NAME`.
    bench.command(
        _name,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
        short_help=_help,
    )(_command(_name, _help))
