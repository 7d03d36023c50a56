"""Options of `vllm-csp batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vllm_csp.serving.batch.formats.choice import OutputFormat
from vllm_csp.serving.batch.sources.choice import InputKind
from vllm_csp.serving.commands import serve_options
from vllm_csp.serving.commands.mode import Mode

ASKING = "Questions"
RAY = "Ray"
LOAD = "Load and failures"
"""Panels of the help."""

Input = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="Requests in .jsonl (OpenAI's batch form, or lines of custom_id, image, "
        "question), a folder or quoted pattern of photos, COCO instances in .json, or a folder "
        "of ReasonSeg.",
    ),
]
OutputPath = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        help=".jsonl (OpenAI's batch output, with masks), .json (COCO), .parquet, or a folder "
        "for PNG masks.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run that wrote OUT; failed rows are tried again."
    ),
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        "-q",
        rich_help_panel=ASKING,
        help="Ask this about every photo; repeatable. With COCO, {category} stands for each "
        "category an image is annotated with.",
    ),
]
QuestionsFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, rich_help_panel=ASKING, help="The same, a file with lines."
    ),
]
AnswerMode = Annotated[
    Mode,
    typer.Option(
        rich_help_panel=ASKING,
        help="generate: the model answers; force: only a mask, several times as fast. Requests "
        "in OpenAI's form say it themselves.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=ASKING, help="Longest answer, likewise."),
]
ImagesFolder = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        rich_help_panel=ASKING,
        help="Where relative image paths of IN start. Default: IN's folder; for COCO the "
        "folder `images` in it, if there is one.",
    ),
]
InputFormat = Annotated[
    InputKind, typer.Option("--input", help="What IN is; auto tells by its name.")
]
OutputFormatName = Annotated[
    OutputFormat,
    typer.Option(
        "--format",
        help="What OUT is; auto tells by its name. coco: a whole dataset; coco-results: the "
        "list for pycocotools' loadRes, the default for COCO inputs.",
    ),
]
ServerFlags = Annotated[
    str,
    typer.Option(
        rich_help_panel=serve_options.SERVER,
        help="Its flags of `vllm serve`, in quotes: --server-flags '--dtype bfloat16'.",
    ),
]
BaseUrls = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=serve_options.SERVER,
        help="Ask this running server instead, as in http://host:8000; repeatable: images go "
        "round, and a server that fails is set aside until it is ready.",
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="VLLM_API_KEY", rich_help_panel=serve_options.SERVER, help="Key of the servers."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=serve_options.SERVER, help="Model name to ask for, whatever rows say."
    ),
]
OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        rich_help_panel=RAY,
        help="Start a server in each of several Ray workers instead of one here.",
    ),
]
RayWorkers = Annotated[
    int,
    typer.Option(
        min=0, rich_help_panel=RAY, help="How many. Default: as many as GPUs allow, else 1."
    ),
]
RayAddress = Annotated[
    str,
    typer.Option(
        envvar="RAY_ADDRESS",
        rich_help_panel=RAY,
        help="A running cluster, as in auto or head:6379; local starts one on this machine.",
    ),
]
RayGpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=RAY,
        help="GPUs of each worker. Default: 1 where the cluster has any.",
    ),
]
RayRound = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=RAY,
        help="Rows given to Ray at once, after which workers start anew. "
        "Default: 50,000 per worker.",
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=LOAD,
        help="Most requests on their way at once; with --ray, per worker.",
    ),
]
LookAhead = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=LOAD,
        help="Rows to read ahead, to ask those about one image together.",
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=LOAD,
        help="How often to send a row again after 429, 503 and the like, a timeout or a lost "
        "connection, with growing pauses.",
    ),
]
Timeout = Annotated[
    float, typer.Option(min=1, rich_help_panel=LOAD, help="Seconds to wait for an answer.")
]
Patience = Annotated[
    float,
    typer.Option(
        min=0,
        rich_help_panel=LOAD,
        help="Seconds without any server of --base-url before the remaining rows fail.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON, to standard output.")
]
