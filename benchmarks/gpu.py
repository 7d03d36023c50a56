"""All that a GPU is asked, in one command and within a time limit.

    python -m benchmarks.gpu [--limit 540] [--output FOLDER] [--only encode e2e] [--fresh]

LISA-7B's geometry with random weights (made up where they are loaded, nothing to download), SAM
ViT-H, CLIP-L. Steps run most important first; one that may not fit into what is left of the limit
is left over, and the same command takes it up the next time, as it does a step that failed or was
late; on another machine, once gpu.tar.gz has been unpacked in --output there. Logs, the journal,
results, `report.json` and `report.md` are in that folder. vLLM must be importable; the plugin need
not be installed: its entry points are written beside the output. `--tiny` runs the same steps on a
tiny geometry, on a CPU too. The last line on stdout is the report as one JSON document.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timed_steps import Journal, Step, run_steps, summary

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    *("vllm", "torch", "transformers", "segment_anything", "pycocotools", "sentencepiece"),
    *("typer", "rich", "tenacity", "ijson", "httpx", "pydantic", "PIL"),
)
# Kernels for all kinds of sampling, of which the questions here need one.
NO_WARM_UP = '--kernel-config={"enable_jit_warmup":false}'
# Fewer sizes than vLLM would compile and capture before the first question.
CAPTURED = '--compilation-config={"cudagraph_capture_sizes":[1,2,4,8,16,32,64,128,256]}'
GROUPS = ("vllm.general_plugins", "vllm.endpoint_plugins")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what fits, report, and say by the exit code whether all is done."""
    arguments = parse(argv)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"missing here: {', '.join(missing)}; bring them as wheels")
    wanted = [step for step in steps(arguments.tiny) if step.name in (arguments.only or NAMES)]
    file = output / "journal.json"
    if arguments.fresh:
        file.unlink(missing_ok=True)
    journal = Journal.open(file)

    def write() -> dict[str, Any]:
        return write_report(wanted, journal, output, arguments.hand_over)

    run_steps(wanted, journal, arguments.limit, environment(output, arguments.tiny), write)
    report = write()
    print(as_markdown(report), file=sys.stderr)
    print(json.dumps(report))
    sys.exit(not all(journal.is_done(step.name) for step in wanted))


def write_report(
    wanted: Sequence[Step], journal: Journal, output: Path, hand_over: Path | None
) -> dict[str, Any]:
    """What is known so far, in `output`; and with all else of that folder in `hand_over`."""
    report = summary(wanted, journal, output / "results")
    (output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (output / "report.md").write_text(as_markdown(report))
    if hand_over is not None and hand_over.resolve() != output.resolve():
        shutil.make_archive(str(hand_over / "gpu"), "gztar", output)
        shutil.copy(output / "report.md", hand_over)
    return report


def steps(tiny: bool = False) -> list[Step]:
    """In order of importance. Guesses are generous: nothing has been run on a GPU yet."""
    size = ["--layers", "8", "--hidden", "128"] if tiny else ["--layers", "32", "--hidden", "4096"]
    large = [*size, "--hollow", *([] if tiny else ["--large"])]
    dtype = "float32" if tiny else "bfloat16"
    dtypes = ["--dtypes", dtype]
    vit = "tiny" if tiny else "vit_h"
    backends = ["CPU_ATTN"] if tiny else ["FLASH_ATTN", "TRITON_ATTN"]
    clients = ["1", "2"] if tiny else ["1", "16", "64"]
    kv = ["--kv-bytes", "64M"] if tiny else ["--kv-bytes", ""]
    some = ["--requests", "4"] if tiny else ["--requests", "32", "--waves", "8"]
    some += ["--baseline-questions", "2"] if tiny else []
    seats = ["--seats", "8"] if tiny else ["--seats", "256"]
    flags = ["--resume", *([] if tiny else ["--compiled", f"--flags={NO_WARM_UP} {CAPTURED}"])]
    return [
        _step(
            "encode",
            80,
            *("--encoders", vit, *([] if tiny else ["mobile_sam", "clip"])),
            *("--ways", "auto", "biased", *dtypes, "--repeats", "1"),
            *("--batches", *(["1"] if tiny else ["1", "8"]), "--check"),
        ),
        _step(
            "e2e",
            280,
            *("--systems", "dense", "csp-65", "reference", *large, *kv, *some, *seats, *flags),
            *("--concurrency", *clients, "--per-image", "1", "8"),
        ),
        _step(
            "parity",
            110,
            *("--backends", *backends, "--dtype", dtype, "--report-only"),
            *(["--least", "0.99"] if tiny else ["--at-once", "4"]),
        ),
        _step(
            "decode-masks",
            50,
            *("--queries", "1", *([] if tiny else ["32", "64"]), "--per-image", "1"),
            *(*dtypes, "--repeats", "1"),
        ),
        _step(
            "prefill",
            150,
            *(*size, *([] if tiny else ["--hollow", "--kv-mib", "24576"]), "--repeats", "1"),
            *("--policies", "stock", "dense", "csp-65", "csp-70", "--dtype", dtype),
            *("--concurrency", *(["1"] if tiny else ["1", "16", "64"])),
            results=("prefill-float32-128.json" if tiny else "prefill-bfloat16.json",),
        ),
        _step(
            "waterfall",
            100,
            *(*large, "--kv-mib", "64" if tiny else "4096", "--rounds", "1" if tiny else "3"),
            *("--batches", "1", *([] if tiny else ["16"])),
            *("--max-tokens", "10", "--policies", "dense", *([] if tiny else ["csp-65"])),
        ),
        _step(
            "encode-int8",
            60,
            *("--encoders", vit, "--implementations", "ours", "int8", *dtypes, "--repeats", "1"),
            *("--check", "--result", "encode-int8"),
            module="encode",
        ),
        _step(
            "streams",
            200,
            *("--systems", "dense", "dense-one-stream", *large, *kv, *some, *seats, *flags),
            *("--concurrency", clients[-1], "--per-image", "1", "--result", "streams"),
            module="e2e",
        ),
    ]


def _step(
    name: str, guess: float, *options: str, results: tuple[str, ...] = (), module: str = ""
) -> Step:
    file = (module or name).replace("-", "_")
    command = (sys.executable, "-m", f"benchmarks.{file}", *options)
    return Step(name, command, guess, results or (f"{name}.json",))


NAMES = [step.name for step in steps()]


def environment(output: Path, tiny: bool = False) -> dict[str, str]:
    """For the steps: where results go, the plugin's entry points, no network."""
    found = {
        "VLLM_CSP_BENCH_RESULTS": str(output / "results"),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(ROOT), str(entry_points(output)), os.environ.get("PYTHONPATH", "")])
        ),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if not tiny:
        # FlashInfer need not be there, and would compile at the first question.
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return found


def entry_points(output: Path) -> Path:
    """A folder with the plugin's metadata, as pip would write it; empty if it is installed."""
    from importlib.metadata import entry_points as installed

    folder = output / "site"
    folder.mkdir(parents=True, exist_ok=True)
    if any(one.name == "vllm_csp" for one in installed(group=GROUPS[0])):
        return folder
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / f"vllm_csp-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    about = f"Metadata-Version: 2.1\nName: vllm-csp\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about)
    lines = []
    for group in GROUPS:
        names = project["entry-points"][group]
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def as_markdown(report: dict[str, Any]) -> str:
    """Steps and tables."""
    lines = ["| step | state | seconds |", "| --- | --- | --- |"]
    lines += [f"| {n} | {one['state']} | {one['seconds']} |" for n, one in report["steps"].items()]
    for name, one in report["steps"].items():
        if one["tail"]:
            lines += ["", f"## {name}: {one['state']}", "", "```", one["tail"].strip(), "```"]
    for name, document in report["results"].items():
        rows = document["rows"] or [{}]
        lines += ["", f"## {name}", ""]
        lines += [f"| {' | '.join(rows[0])} |", f"| {' | '.join('---' for _ in rows[0])} |"]
        lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
        memory = document["setting"].get("memory")
        if memory:
            lines += ["", *(f"- {system}: {'; '.join(said)}" for system, said in memory.items())]
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    place = os.environ.get("OUT")
    parser.add_argument("--limit", type=float, default=540, help="Seconds.")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu", help="%(default)s.")
    parser.add_argument(
        "--hand-over",
        type=Path,
        default=Path(place) if place else None,
        help="A folder that gets report.md, and gpu.tar.gz of the output's, after each step; "
        "default: $OUT.",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="Forget what was done.")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
