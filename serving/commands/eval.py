"""The command `vllm-csp eval`."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from vllm_csp.datasets.item import SHORT_QUESTION
from vllm_csp.datasets.registry import Format, Source, read_names, read_photos
from vllm_csp.serving.client import ServerError
from vllm_csp.serving.commands.failure import failed
from vllm_csp.serving.commands.mode import Mode

# Wide enough for the table where the output goes into a file.
console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)


class Template(StrEnum):
    """LISA's prompts."""

    LLAVA_V1 = "llava_v1"
    LLAVA_LLAMA_2 = "llava_llama_2"


def evaluate(
    data: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Data set folder.")],
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint", "-c", envvar="VLLM_CSP_CHECKPOINT", help="LISA checkpoint to load."
        ),
    ] = "",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy to evaluate, repeatable: csp, csp:preset=70,cluster=random, "
            "'fastv:{\"layer\": 8}'. Extra: mean=90 or keep=64 scale it to a budget, "
            "image_scale=0.6 takes detail off the photos. The first one is what others are "
            "compared with. Default: dense.",
        ),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The same as a JSON list of objects."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the results.")
    ] = Path("eval"),
    data_format: Annotated[
        Format, typer.Option("--format", help="What the folder holds; auto tells by its files.")
    ] = Format.AUTO,
    split: Annotated[str, typer.Option(help="Part of the data set: val, testA, ...")] = "",
    images: Annotated[
        Path | None, typer.Option(help="Folder of COCO's photos, if they are not in the data set.")
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Take the photos named in this file only, one a line."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many photos, drawn.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    question: Annotated[
        str, typer.Option(help="Question for a class name (COCO and semantic folders).")
    ] = SHORT_QUESTION,
    least_share: Annotated[
        float, typer.Option(min=0, max=1, help="Ask only for classes that cover this much.")
    ] = 0.0,
    mode: Annotated[
        Mode,
        typer.Option(
            help="force: LISA's protocol, the mask of the fixed answer; generate: the model "
            "answers, and its answers are judged too.",
        ),
    ] = Mode.FORCE,
    template: Annotated[Template, typer.Option(help="Conversation template.")] = Template.LLAVA_V1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer (generate).")] = 64,
    share_engines: Annotated[
        bool,
        typer.Option(
            help="Let policies of one KV layout share an engine and its image encoders: faster, "
            "but without figures of speed.",
        ),
    ] = False,
    engine: Annotated[
        str, typer.Option(help='Further arguments of vllm.LLM as JSON: \'{"dtype": "float32"}\'.')
    ] = "{}",
    base_url: Annotated[str, typer.Option(help="Ask this server instead of an own engine.")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLLM_API_KEY", help="Key of that server.")] = "",
    fresh: Annotated[bool, typer.Option(help="Forget earlier results in --output.")] = False,
) -> None:
    """Measure gIoU and cIoU on a data set, for one policy or for several at equal questions.

    Reads ReasonSeg, refCOCO/+/g, COCO instances, semantic folders and this project's scenes. Writes
    policies.csv, kinds.csv, report.json and accuracy.png into --output; an interrupted comparison
    goes on where it was. Example:

    vllm-csp eval ReasonSeg --split val -c CHECKPOINT --policy dense --policy csp --limit 50
    """
    # These need torch, which a client of a server may not have.
    from vllm_csp.evaluation.evaluate import Evaluation, run_evaluation
    from vllm_csp.evaluation.policy_run import read_policy_runs

    try:
        names = read_names(only) if only else None
        source = Source(
            data, data_format, split or None, images, question, least_share, names, limit, seed
        )
        evaluation = Evaluation(
            source=source,
            photos=read_photos(source),
            runs=read_policy_runs(policy or [], policies),
            output=output,
            checkpoint=checkpoint,
            mode=mode.value,
            template=template.value,
            max_tokens=max_tokens,
            share_engines=share_engines,
            engine=_engine_arguments(engine),
            base_url=base_url,
            api_key=api_key,
            fresh=fresh,
        )
        # vLLM's reports of its start would tear the progress bar.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        run_evaluation(evaluation, console)
    except (ValueError, RuntimeError, ServerError, httpx.HTTPError, OSError) as error:
        raise failed(error) from error


def _engine_arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--engine is no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ValueError("--engine must be a JSON object of arguments of vllm.LLM")
    return arguments
