"""The command `vllm-csp batch`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

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
from vllm_csp.serving.commands import batch_options as options
from vllm_csp.serving.commands import serve_options
from vllm_csp.serving.commands.failure import failed
from vllm_csp.serving.commands.mode import Mode
from vllm_csp.serving.commands.standard_error import new_console
from vllm_csp.serving.server import SECONDS_TO_START

console = new_console()


def batch(
    source: options.Input,
    output: options.OutputPath,
    resume: options.Resume = False,
    question: options.Questions = None,
    questions: options.QuestionsFile = None,
    mode: options.AnswerMode = Mode.GENERATE,
    max_tokens: options.MaxTokens = None,
    images: options.ImagesFolder = None,
    input_kind: options.InputFormat = InputKind.AUTO,
    output_format: options.OutputFormatName = OutputFormat.AUTO,
    checkpoint: serve_options.Checkpoint = "",
    policy: serve_options.Policy = "",
    preset: serve_options.Preset = "",
    sam_image_size: serve_options.SamImageSize = None,
    sam_quantization: serve_options.SamQuantization = "",
    start_seconds: serve_options.StartSeconds = SECONDS_TO_START,
    server_flags: options.ServerFlags = "",
    base_url: options.BaseUrls = None,
    api_key: options.ApiKey = "",
    model: options.Model = None,
    ray: options.OnRay = False,
    ray_workers: options.RayWorkers = 0,
    ray_address: options.RayAddress = LOCAL,
    ray_gpus: options.RayGpus = None,
    ray_round: options.RayRound = 0,
    concurrency: options.Concurrency = 32,
    look_ahead: options.LookAhead = 1024,
    retries: options.Retries = 8,
    timeout: options.Timeout = 300,
    patience: options.Patience = 120,
    as_json: options.AsJson = False,
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
