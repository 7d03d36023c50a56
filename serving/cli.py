"""The command `vllm-csp`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from vllm_csp.cache_folder import CACHE
from vllm_csp.mini import MINI
from vllm_csp.serving.client import ServerError, ask_server
from vllm_csp.serving.commands import serve_options
from vllm_csp.serving.commands.batch import batch
from vllm_csp.serving.commands.bench import bench
from vllm_csp.serving.commands.eval import evaluate
from vllm_csp.serving.commands.failure import failed
from vllm_csp.serving.commands.mode import Mode
from vllm_csp.serving.commands.pictures import draw_answer, draw_kept_tokens, picture_path
from vllm_csp.serving.commands.standard_error import new_console
from vllm_csp.serving.server import SECONDS_TO_START, background_server, run_server

FAILURES = (ServerError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError)
"""What goes wrong for reasons that a message says better than a traceback."""

app = typer.Typer(
    help="Serve reasoning segmentation on vLLM: ask about an image, get text and masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = new_console()
app.command("eval")(evaluate)
app.command("batch")(batch)
app.add_typer(bench, name="bench")


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Photo to ask about.")],
    question: Annotated[str, typer.Argument(help='As in "Where is the cat? ..."')],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            callback=picture_path,
            help="Write the photo with its masks here.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole answer as JSON, masks as COCO RLE.")
    ] = False,
    mode: Annotated[
        Mode, typer.Option(help="generate: the model answers; force: only the mask, no text.")
    ] = Mode.GENERATE,
    show_tokens: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            callback=picture_path,
            help="Write a picture of the image tokens that each stage kept here.",
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 300,
    checkpoint: serve_options.Checkpoint = "",
    policy: serve_options.Policy = "",
    preset: serve_options.Preset = "",
    sam_image_size: serve_options.SamImageSize = None,
    sam_quantization: serve_options.SamQuantization = "",
    start_seconds: serve_options.StartSeconds = SECONDS_TO_START,
    base_url: Annotated[
        str, typer.Option(help="Ask this running server instead of starting one.")
    ] = "",
    api_key: Annotated[str, typer.Option(envvar="VLLM_API_KEY", help="Key of that server.")] = "",
    model: Annotated[
        str | None, typer.Option(help="Model name to ask that server for. Default: the one it has.")
    ] = None,
) -> None:
    """Ask about one photo; prints the answer and can draw its masks.

    Without --base-url a server is started for the one question (20 s for a small model).
    """
    options: dict[str, Any] = {
        "mode": mode.value,
        "show_tokens": show_tokens is not None,
        "max_tokens": max_tokens,
        "timeout": timeout,
    }
    try:
        flags = serve_options.policy_flags(
            policy, preset, sam_image_size=sam_image_size, sam_quantization=sam_quantization
        )
        if base_url:
            serve_options.require_own_server(flags)
            key = api_key or None
            answer = ask_server(base_url, image, question, api_key=key, model=model, **options)
        else:
            with _own_server(checkpoint, flags, start_seconds) as url:
                answer = ask_server(url, image, question, **options)
        _print_answer(answer, as_json=as_json)
        if output is not None:
            draw_answer(image, question, answer, output)
        if show_tokens is not None:
            draw_kept_tokens(image, answer, show_tokens)
    except FAILURES as error:
        raise failed(error) from error


def _print_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    message = answer["choices"][0]["message"]
    if as_json:
        shown = {"answer": message["content"], "masks": message["masks"], "usage": answer["usage"]}
        typer.echo(json.dumps(shown))
        return
    typer.echo(message["content"])
    for mask in message["masks"]:
        typer.echo(
            f"  mask {mask['seg_index']}: box {mask['bbox']}, {mask['area']} pixels, "
            f"score {mask['score']:.2f}"
        )
    if not message["masks"]:
        typer.echo("  no mask: the answer has no [SEG]")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    short_help="Run an OpenAI-compatible server.",
)
def serve(
    context: typer.Context,
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="LISA checkpoint: a folder or a hub id. Default: LISA-mini, as `lisa-mini`."
        ),
    ] = "",
    policy: serve_options.Policy = "",
    preset: serve_options.Preset = "",
    sam_encoder: Annotated[
        str, typer.Option(help="mobile_sam: MobileSAM's image encoder instead of the checkpoint's.")
    ] = "",
    sam_encoder_weights: Annotated[
        str, typer.Option(help="Its weights: mobile_sam.pt or .safetensors, a folder or a hub id.")
    ] = "",
    sam_image_size: serve_options.SamImageSize = None,
    sam_quantization: serve_options.SamQuantization = "",
    max_body_mb: serve_options.MaxBody = None,
    max_held_body_mb: serve_options.MaxHeldBody = None,
    max_held_image_mb: serve_options.MaxHeldImage = None,
    max_held_requests: serve_options.MaxHeldRequests = None,
    body_seconds: serve_options.BodySeconds = None,
    drain_seconds: serve_options.DrainSeconds = None,
    probe_seconds: serve_options.ProbeSeconds = None,
    stuck_seconds: serve_options.StuckSeconds = None,
    log_format: serve_options.Format = "text",
) -> None:
    """Run an OpenAI-compatible server with masks in its answers.

    All flags of `vllm serve` are understood (see `vllm serve --help=all`), after the checkpoint. It
    is VLLM_PLUGINS=vllm_csp vllm serve CHECKPOINT [FLAGS] but for what docs/operations.md lists.
    """
    own = context.args
    if checkpoint.startswith("-"):  # Without a checkpoint its place is taken by the first flag.
        checkpoint, own = "", [checkpoint, *own]
    small = (
        [] if checkpoint else ["--served-model-name", "lisa-mini", *serve_options.SMALL_MODEL_FLAGS]
    )
    checkpoint = checkpoint or str(MINI)
    if log_format == "text":
        said = f"vllm-csp: serving {checkpoint}; answers carry message.masks"
        console.print(said, highlight=False)
    try:
        settings = serve_options.policy_flags(
            policy,
            preset,
            sam_encoder=sam_encoder,
            sam_encoder_weights=sam_encoder_weights,
            sam_image_size=sam_image_size,
            sam_quantization=sam_quantization,
            server=serve_options.server_section(
                max_body_mb=max_body_mb,
                max_held_body_mb=max_held_body_mb,
                max_held_image_mb=max_held_image_mb,
                max_held_requests=max_held_requests,
                body_seconds=body_seconds,
                drain_seconds=drain_seconds,
                probe_seconds=probe_seconds,
                stuck_seconds=stuck_seconds,
                log_format=log_format,
            ),
        )
        serve_options.require_one_source(settings, own)
        flags = [*small, *settings, *serve_options.log_flags(log_format), *own]
        if sam_encoder:
            from vllm_csp.models.encoder_file import EncoderFile

            EncoderFile.find(sam_encoder, sam_encoder_weights)
    except ValueError as error:
        raise failed(error, 2) from error
    run_server(checkpoint, flags)


@app.command()
def standin(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a small checkpoint with random weights, in the layout of the published ones."""
    from vllm_csp.standin import write_standin

    typer.echo(str(write_standin(folder, seed=seed)))


@app.command()
def demo(
    image: Annotated[
        Path | None, typer.Option(help="Photo to use; default: one that scikit-image ships.")
    ] = None,
    question: Annotated[str, typer.Option(help="What to ask.")] = (
        "Can you segment the cat in this image?"
    ),
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("demo/overlay.png"),
    checkpoint: serve_options.Checkpoint = "",
    start_seconds: serve_options.StartSeconds = SECONDS_TO_START,
) -> None:
    """Start a server, send it one real request, draw the answer."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        picture_path(output)
        photo = image or _sample_photo()
        with _own_server(checkpoint, [], start_seconds) as url:
            answer = ask_server(url, photo, question)
        message = answer["choices"][0]["message"]
        typer.echo(f"question: {question}\nanswer:   {message['content']}")
        draw_answer(photo, question, answer, output)
        typer.echo(f"picture:  {output}")
    except FAILURES as error:
        raise failed(error) from error


@contextmanager
def _own_server(checkpoint: str, flags: list[str], start_seconds: float) -> Iterator[str]:
    """The URL of a server for one question."""
    if not checkpoint:
        checkpoint, flags = str(MINI), [*serve_options.SMALL_MODEL_FLAGS, *flags]
    # Compilation takes longer than one question.
    flags = ["--enforce-eager", *flags]
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "server.log"
    with (
        console.status(f"starting a server with {checkpoint} (log: {log})"),
        background_server(checkpoint, flags, log, start_seconds) as url,
    ):
        yield url


def _sample_photo() -> Path:
    try:
        from skimage import data
    except ImportError as error:
        raise RuntimeError(
            "no photo given: pass --image, or install scikit-image for its sample photos"
        ) from error
    return Path(data.__file__).parent / "chelsea.png"


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
