"""`python -m vllm_csp.training`: embed, train, export."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vllm_csp.allocator import keep_freed_memory
from vllm_csp.images import to_rgb
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
from vllm_csp.scenes import make_sample
from vllm_csp.scenes.phrases import ANSWERS
from vllm_csp.training.embeddings import EmbeddingFile, embed
from vllm_csp.training.export import folded_encoder, sam_weights, write_checkpoint
from vllm_csp.training.loop import Trainer
from vllm_csp.training.packing import Packer
from vllm_csp.training.photos import Photo, photos
from vllm_csp.training.probe import probe
from vllm_csp.training.questions import PHRASINGS, SCENE_WORDS
from vllm_csp.training.settings import TrainingSettings
from vllm_csp.training.shape import MiniShape
from vllm_csp.training.stream import SCENE_SIZE, Stream
from vllm_csp.training.student import Student

app = typer.Typer(
    help="Train LISA-mini: embed, then train (again and again, it resumes), then export.",
    no_args_is_help=True,
)
console = Console(stderr=True)

Assets = Annotated[
    Path, typer.Option(help="Folder with camvid/, ccp/, coco/ and mobile-sam/.", exists=True)
]
Run = Annotated[Path, typer.Option(help="Folder of the run: embeddings, vocabulary, state.")]


@app.command(name="embed")
def embed_command(
    assets: Assets,
    run: Run,
    scenes: Annotated[int, typer.Option(help="Scenes to embed beside all photos.")] = 1500,
    batch: Annotated[int, typer.Option(help="Pictures per forward pass.")] = 2,
) -> None:
    """Run MobileSAM's image encoder over the training pictures; goes on where it stopped."""
    keep_freed_memory()
    file = EmbeddingFile(run)
    missing = [photo for photo in photos(assets, "train") if photo.key not in file.places]
    seeds = [seed for seed in range(scenes) if f"train/{seed}" not in file.places]
    random.Random(0).shuffle(missing)
    pictures = _mixed(missing, seeds)
    embed(_sam(assets), pictures, len(missing) + len(seeds), file, batch)


@app.command()
def train(
    assets: Assets,
    run: Run,
    minutes: Annotated[float, typer.Option(help="Stop, resumably, after so many minutes.")] = 1e6,
    settings: Annotated[
        Path | None, typer.Option(help="JSON of settings for a new run; see settings.py.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.")] = 1,
) -> None:
    """Train, or go on training; one JSON line of losses every 50 steps, also in log.jsonl."""
    keep_freed_memory()
    kept = run / "settings.json"
    if not kept.exists():
        text = settings.read_text() if settings else "{}"
        kept.write_text(TrainingSettings.model_validate_json(text).model_dump_json(indent=1))
    chosen = TrainingSettings.model_validate_json(kept.read_text())
    torch.manual_seed(chosen.seed)
    found = photos(assets, "train")
    tokenizer = vocabulary(run, found)
    packer = Packer(tokenizer, words(found))
    student = _student(_mobile_sam(assets), tokenizer, packer.pieces)
    trainer = Trainer(chosen, student, (packer.before_image, packer.after_image), run)
    file = EmbeddingFile(run)
    ready = [photo for photo in found if photo.key in file.places]
    trainer.train(Stream(chosen, packer, ready or found, file), minutes, workers)


@app.command()
def export(
    assets: Assets, run: Run, output: Annotated[Path, typer.Argument(help="Checkpoint folder.")]
) -> None:
    """Write the state of a run as a checkpoint in the published LISA layout."""
    tokenizer = vocabulary(run, [])
    sam = _mobile_sam(assets)
    student = _student(sam, tokenizer, Packer(tokenizer, words(photos(assets, "train"))).pieces)
    state = _state(run)
    student.load_state_dict(state["student"])
    size = write_checkpoint(output, student, MiniShape(), run, folded_encoder(sam))
    console.print(f"{output}: step {state['step']}, {size / 1e6:.2f} MB")


@app.command(name="probe")
def probe_command(
    assets: Assets,
    run: Run,
    scenes: Annotated[int, typer.Option(help="Held-out scenes to ask about.")] = 40,
) -> None:
    """Say how often a run finds what is asked for in held-out scenes, before masks are decoded."""
    tokenizer = vocabulary(run, [])
    packer = Packer(tokenizer, words(photos(assets, "train")))
    student = _student(_mobile_sam(assets), tokenizer, packer.pieces)
    student.load_state_dict(_state(run)["student"])
    table = Table("kind", "read-outs", "grid", "place", "look")
    for row in probe(student, packer, range(scenes)):
        table.add_row(*map(str, row.values()))
    console.print(table)


@app.command(name="held-out")
def held_out_command(
    assets: Assets, output: Annotated[Path, typer.Argument(help="Folder for the lists.")]
) -> None:
    """List the photos that were not trained on, one file per source, for `vllm-csp eval --only`."""
    output.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    for photo in photos(assets, "held_out"):
        names.setdefault(photo.source, []).append(photo.path.stem)
    for source, stems in names.items():
        (output / f"{source}.txt").write_text("\n".join(stems) + "\n")
        console.print(f"{output / source}.txt: {len(stems)} photos")


def vocabulary(run: Path, found: Sequence[Photo]) -> LisaTokenizer:
    """The run's tokenizer; a new one is trained on scene questions and class names."""
    from vllm_csp.training.vocabulary import write_vocabulary

    names = sorted({name for photo in found for name in photo.classes})
    texts = (text for seed in range(1500) for text in _scene_texts(seed))
    photo_texts = [phrasing.format(name) for name in names for phrasing in PHRASINGS]
    return write_vocabulary(
        run, [*photo_texts, *ANSWERS.values(), *texts] if found else [], MiniShape().pieces
    )


def _scene_texts(seed: int) -> Iterator[str]:
    for question in make_sample(seed, "train", size=64).questions:
        yield question.text
        yield question.answer


def words(found: Sequence[Photo]) -> list[str]:
    """All words that the vision tower learns to see in patches."""
    names = sorted({name for photo in found for name in photo.classes})
    return list(dict.fromkeys([*SCENE_WORDS, *names]))


def _state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
    return state


def _student(
    sam: Mapping[str, Tensor], tokenizer: LisaTokenizer, word_pieces: Sequence[Sequence[int]]
) -> Student:
    student = Student(MiniShape(), tokenizer.vocab_size, word_pieces)
    student.load_sam(sam)
    return student


def _sam(assets: Path) -> Sam:
    sam = Sam(MOBILE_SAM).eval()
    sam.load_weights(_mobile_sam(assets).items())
    return sam.to("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16)


def _mobile_sam(assets: Path) -> dict[str, Tensor]:
    return sam_weights(assets / "mobile-sam/mobile_sam.safetensors")


def _mixed(found: list[Photo], seeds: list[int]) -> Iterator[tuple[str, Image.Image]]:
    """Photos and scenes in turn, so that a stopped run has some of both."""
    for number in range(max(len(found), len(seeds))):
        if number < len(found):
            yield found[number].key, to_rgb(Image.open(found[number].path))
        if number < len(seeds):
            seed = seeds[number]
            yield f"train/{seed}", make_sample(seed, "train", size=SCENE_SIZE).image


if __name__ == "__main__":
    app()
