"""Photos and questions for vLLM's own client, so that upstream's tool measures this server.

    vllm-csp bench client-files FOLDER [--photos 64] [--per-image 1]

Writes FOLDER/*.jpg and FOLDER/questions.jsonl, one line per question in the form of
`vllm bench serve --dataset-name custom_image`, and prints the command that asks them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.questions import photo, question


def main(argv: Sequence[str] | None = None) -> None:
    """Write the files; print the command."""
    arguments = parse(argv)
    file = write_files(arguments.folder, arguments.photos, arguments.per_image)
    print(command(file, arguments.photos * arguments.per_image))


def write_files(folder: Path, photos: int, per_image: int) -> Path:
    """The JSONL file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(photos):
        picture = (folder / f"{number:05d}.jpg").resolve()
        photo(number).save(picture, "JPEG", quality=92)
        lines += [
            json.dumps({"prompt": question(number + one), "image_files": [str(picture)]})
            for one in range(per_image)
        ]
    file = folder / "questions.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def command(file: Path, questions: int) -> str:
    """What to run beside a server on port 8000 that was started as `--served-model-name lisa`.

    `max_tokens` 1 and `force`: one mask per question. The client counts text only, so its output
    tokens per second say nothing of masks.
    """
    body = json.dumps({"segmentation": {"mode": "force"}})
    return (
        "vllm bench serve --backend openai-chat --endpoint /v1/chat/completions "
        "--base-url http://localhost:8000 --model lisa --tokenizer CHECKPOINT "
        f"--tokenizer-mode lisa --dataset-name custom_image --dataset-path {file} "
        f"--custom-ensure-client-side-data --num-prompts {questions} --custom-output-len 1 "
        f"--max-concurrency 16 --temperature 0 --extra-body '{body}'"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench client-files",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--per-image", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
