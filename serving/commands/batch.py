"""The command `vllm-csp batch`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from vllm_csp.cache_folder import CACHE
from vllm_csp.mini import MINI
from vllm_csp.serving.batch.embedded import EmbeddedServer
from vllm_csp.serving.batch.formats.choice import OutputFormat, choose_format
from vllm_csp.serving.batch.job import Job, Settings
from vllm_csp.serving.batch.journal import BusyError
from vllm_csp.serving.batch.on_ray.cluster import LOCAL, Cluster
from vllm_csp.serving.batch.output import Output
from vllm_csp.serving.batch.sources.choice import InputKind, open_source
from vllm_csp.serving.batch.sources.source import Asking, UsageError
from vllm_csp.serving.batch.summary import summary_table
from vllm_csp.serving.commands import serve_options
from vllm_csp.serving.commands.failure import failed
from vllm_csp.serving.commands.mode import Mode
from vllm_csp.serving.commands.standard_error import new_console
from vllm_csp.serving.server import SECONDS_TO_START

console = new_console()

ASKING = "Questions"
RAY = "Ray"
LOAD = "Load and failures"


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="Requests in .jsonl (OpenAI's batch form, or lines of custom_id, image, "
            "question), a folder or quoted pattern of photos, COCO instances in .json, or a folder "
            "of ReasonSeg.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help=".jsonl (OpenAI's batch output, with masks), .json (COCO), .parquet, or a folder "
            "for PNG masks.",
        ),
    ],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run that wrote OUT; failed rows are tried again."
        ),
    ] = False,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            "-q",
            rich_help_panel=ASKING,
            help="Ask this about every photo; repeatable. With COCO, {category} stands for each "
            "category an image is annotated with.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, rich_help_panel=ASKING, help="The same, a file with lines."
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            rich_help_panel=ASKING,
            help="generate: the model answers; force: only a mask, several times as fast. Requests "
            "in OpenAI's form say it themselves.",
        ),
    ] = Mode.GENERATE,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=ASKING, help="Longest answer, likewise."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            rich_help_panel=ASKING,
            help="Where relative image paths of IN start. Default: IN's folder; for COCO the "
            "folder `images` in it, if there is one.",
        ),
    ] = None,
    input_kind: Annotated[
        InputKind, typer.Option("--input", help="What IN is; auto tells by its name.")
    ] = InputKind.AUTO,
    output_format: Annotated[
        OutputFormat,
        typer.Option(
            "--format",
            help="What OUT is; auto tells by its name. coco: a whole dataset; coco-results: the "
            "list for pycocotools' loadRes, the default for COCO inputs.",
        ),
    ] = OutputFormat.AUTO,
    checkpoint: serve_options.Checkpoint = "",
    policy: serve_options.Policy = "",
    preset: serve_options.Preset = "",
    sam_image_size: serve_options.SamImageSize = None,
    sam_quantization: serve_options.SamQuantization = "",
    start_seconds: serve_options.StartSeconds = SECONDS_TO_START,
    server_flags: Annotated[
        str,
        typer.Option(
            rich_help_panel=serve_options.SERVER,
            help="Its flags of `vllm serve`, in quotes: --server-flags '--dtype bfloat16'.",
        ),
    ] = "",
    base_url: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=serve_options.SERVER,
            help="Ask this running server instead, as in http://host:8000; repeatable: images go "
            "round, and a server that fails is set aside until it is ready.",
        ),
    ] = None,
    api_key: Annotated[
        str,
        typer.Option(
            envvar="VLLM_API_KEY", rich_help_panel=serve_options.SERVER, help="Key of the servers."
        ),
    ] = "",
    model: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=serve_options.SERVER, help="Model name to ask for, whatever rows say."
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            rich_help_panel=RAY,
            help="Start a server in each of several Ray workers instead of one here.",
        ),
    ] = False,
    ray_workers: Annotated[
        int,
        typer.Option(
            min=0, rich_help_panel=RAY, help="How many. Default: as many as GPUs allow, else 1."
        ),
    ] = 0,
    ray_address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS",
            rich_help_panel=RAY,
            help="A running cluster, as in auto or head:6379; local starts one on this machine.",
        ),
    ] = LOCAL,
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            rich_help_panel=RAY,
            help="GPUs of each worker. Default: 1 where the cluster has any.",
        ),
    ] = None,
    ray_round: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel=RAY,
            help="Rows given to Ray at once, after which workers start anew. "
            "Default: 50,000 per worker.",
        ),
    ] = 0,
    concurrency: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=LOAD,
            help="Most requests on their way at once; with --ray, per worker.",
        ),
    ] = 32,
    look_ahead: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=LOAD,
            help="Rows to read ahead, to ask those about one image together.",
        ),
    ] = 1024,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel=LOAD,
            help="How often to send a row again after 429, 503 and the like, a timeout or a lost "
            "connection, with growing pauses.",
        ),
    ] = 8,
    timeout: Annotated[
        float, typer.Option(min=1, rich_help_panel=LOAD, help="Seconds to wait for an answer.")
    ] = 300,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=LOAD,
            help="Seconds without any server of --base-url before the remaining rows fail.",
        ),
    ] = 120,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, to standard output.")
    ] = False,
) -> None:
    """Ask many questions about many photos; resume after any crash, each row exactly once.

    Every finished row is appended to OUT, or to OUT.journal.jsonl, from which other formats are
    made at the end. Ctrl-C stops after the rows on their way. Exit code: 0 if every row has an
    answer, 1 if some have not, 2 if what was asked cannot be done.

    vllm-csp batch photos/ masks.json -q "Where is the cup? Please output segmentation mask."
    """
    try:
        asked = [*(question or []), *_lines(questions)]
        asking = Asking(mode.value, max_tokens)
        rows = open_source(source, input_kind, asking, questions=asked, images=images)
        target = Output(output, choose_format(output, output_format, rows.image_ids))
        target.check(Path(source), resume=resume)
        if ray and base_url:
            raise UsageError("--ray starts servers of its own: leave --base-url out")
        chosen = serve_options.policy_flags(
            policy, preset, sam_image_size=sam_image_size, sam_quantization=sam_quantization
        )
        if base_url:
            serve_options.require_own_server(chosen)
        flags = shlex.split(server_flags)
        server = None if base_url else _own_server(checkpoint, chosen, flags, start_seconds)
        cluster = Cluster(ray_address, ray_workers, ray_gpus) if ray else None
        settings = Settings(
            base_urls=tuple(base_url or ()),
            api_key=api_key,
            model=model,
            concurrency=concurrency,
            look_ahead=look_ahead,
            retries=retries,
            timeout=timeout,
            patience=patience,
            rows_per_round=ray_round,
        )
        job = Job(rows, target, settings, console, server, cluster)
        summary = job.run(resume=resume)
    except (BusyError, ValueError) as error:
        raise failed(error, 2) from error
    except (OSError, RuntimeError) as error:
        raise failed(error, 1) from error
    _report(job, summary, as_json=as_json)
    if not job.complete:
        raise typer.Exit(1)


def _report(job: Job, summary: dict[str, object], *, as_json: bool) -> None:
    console.print(summary_table(summary))
    if as_json:
        typer.echo(json.dumps(summary))
    if job.stopped:
        console.print("stopped: the same command with --resume goes on from here")
    else:
        console.print(f"wrote {job.output.path}", highlight=False, markup=False, soft_wrap=True)
    if job.tally.failed:
        console.print(
            f"failed rows have an `error` in {job.output.journal}; --resume tries them again",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]


def _own_server(
    checkpoint: str, settings: list[str], flags: list[str], start_seconds: float
) -> EmbeddedServer:
    serve_options.require_one_source(settings, flags)
    chosen = [*settings, *flags]
    if not checkpoint:
        console.print("No --checkpoint and no --base-url: asking LISA-mini", highlight=False)
        checkpoint = str(MINI)
        chosen = ["--enforce-eager", *serve_options.SMALL_MODEL_FLAGS, *chosen]
    elif Path(checkpoint).exists():
        # Ray workers may have another working folder.
        checkpoint = str(Path(checkpoint).resolve())
    return EmbeddedServer(checkpoint, chosen, CACHE / "logs", start_seconds)
