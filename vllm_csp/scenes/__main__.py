"""The command `python -m vllm_csp.scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vllm_csp.scenes import Split, make_sample
from vllm_csp.scenes.folder import write_scenes
from vllm_csp.scenes.sheet import draw_sheet

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
console = Console(stderr=True)


def main(
    out: Annotated[Path, typer.Argument(file_okay=False, help="Folder to write; made if needed.")],
    split: Annotated[Split, typer.Option(help="No two share a scene or a wording.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 20,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first; the others follow.")] = 0,
    size: Annotated[int, typer.Option(min=64, help="Side of the square images in pixels.")] = 448,
    backgrounds: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of photos (also below it); half of the scenes get one as background.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw all scenes with their questions into this PNG.")
    ] = None,
) -> None:
    """Write synthetic scenes with questions and exact masks, always the same for the same options.

    OUT gets one PNG per scene and scenes.json: a list of questions with image, kind, text, answer
    and masks (COCO run-length encoding). Example:

    python -m vllm_csp.scenes scenes --split test --count 20 --sheet sheet.png
    """
    photos = _photos(backgrounds) if backgrounds else []
    seeds = range(first, first + count)
    samples = [
        (f"{split}-{seed:06d}", make_sample(seed, split, size=size, backgrounds=photos))
        for seed in track(seeds, "Painting", console=console)
    ]
    index = write_scenes(out, samples)
    if sheet:
        draw_sheet([sample for _, sample in samples]).save(sheet)
    console.print(f"{count} scenes in {out}, questions in {index}")


def _photos(folder: Path) -> list[Path]:
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTOS)
    if not photos:
        raise typer.BadParameter(
            f"no photos ({', '.join(PHOTOS)}) in {folder}", param_hint="--backgrounds"
        )
    return photos


if __name__ == "__main__":
    typer.run(main)
