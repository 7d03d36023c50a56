"""Where the time of a question goes, from the photo's file to the mask's run lengths.

    vllm-csp bench waterfall [--policies dense csp-65] [--batches 1 8] [--max-tokens 10]

An engine inside the measuring process, with a stopwatch on each part: `read` (decoding the file),
`preprocess` (CLIP's and SAM's pixels, the image's hash), `sam`, `clip`, `prefill`, `decode` (the
language model with several rows per question, and with one), `head` (logits), `readout` (mask
queries), `mask decode`, `encode answer` (run lengths, box, area), and `rest`: scheduling, sampling,
tokens, metadata, everything not under a stopwatch. On a GPU each part waits for the device, so the
sum is more than a request takes when nothing waits. `max_tokens` 1 asks for the forced mask. Every
policy runs in its own process. The last line on stdout is one JSON document; rows go to
benchmarks/results/waterfall.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from benchmarks.calls import calls
from benchmarks.cells import KEEP_MEMORY, report_cell, run_cell
from benchmarks.model_options import MODEL_OPTIONS, add_model_options, checkpoint_of, model_flags
from benchmarks.plots import plot_bars
from benchmarks.random_weights import LOAD_FORMAT, loading
from benchmarks.report import RESULTS, report_rows
from benchmarks.systems import POLICIES

PARTS = (
    "read",
    "preprocess",
    "sam",
    "clip",
    "prefill",
    "decode",
    "head",
    "readout",
    "mask decode",
    "encode answer",
    "rest",
)
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run all policies and report, or one when called by itself."""
    arguments = parse(argv)
    if arguments.cell:
        report_cell(measure(arguments))
        return
    measured: dict[tuple[str, int], dict[str, float]] = {}
    for name in arguments.policies:
        cell = ["--cell", name, *_passed_on(arguments)]
        environment = {**KEEP_MEMORY, **IN_PROCESS, **(loading() if arguments.hollow else {})}
        for one in run_cell("benchmarks.waterfall", cell, environment):
            measured[name, one["batch"]] = one["ms"]
        print(f"{name} done", file=sys.stderr, flush=True)
    rows = [
        {
            "policy": name,
            "batch": batch,
            "part": part,
            "ms_per_question": round(found[part], 3),
            "share": round(found[part] / sum(found.values()), 4),
        }
        for (name, batch), found in measured.items()
        for part in PARTS
    ]
    names = (*MODEL_OPTIONS, "max_tokens", "rounds")
    setting = {name: getattr(arguments, name) for name in names}
    report_rows(arguments.result, "where a question's time goes", rows, setting)
    for (name, batch), found in measured.items():
        file = RESULTS / f"{arguments.result}-{name}-{batch}.png"
        plot_bars(file, found, "ms per question", f"{name}, {batch} at once")


class Stopwatch:
    """Seconds by part; what is watched must not call what is watched."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._wait = wait

    def on(self, owner: Any, name: str, part: str | Callable[..., str]) -> None:
        """Watch a function or method of `owner`; `part` may choose by the arguments."""
        run = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            chosen = part if isinstance(part, str) else part(*args, **kwargs)
            self._wait()
            began = time.perf_counter()
            try:
                return run(*args, **kwargs)
            finally:
                self._wait()
                self.seconds[chosen] += time.perf_counter() - began

        setattr(owner, name, watched)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds per question and part, for each batch size, in this process."""
    import torch
    from PIL import Image

    from vllm_csp.serving import segmenter as offline
    from vllm_csp.serving.segmenter import Question, Segmenter

    large = max(arguments.batches)
    engine = Segmenter(
        checkpoint_of(arguments),
        dtype=arguments.dtype,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=large,
        disable_log_stats=True,
        additional_config={"csp": POLICIES[arguments.cell]},
        **({"kv_cache_memory_bytes": arguments.kv_mib << 20} if arguments.kv_mib else {}),
        **({"load_format": LOAD_FORMAT} if arguments.hollow else {}),
    )
    on_gpu = torch.cuda.is_available()
    watch = Stopwatch(torch.cuda.synchronize if on_gpu else lambda: None)
    engine.llm.apply_model(lambda model: watch_model(model, watch))
    watch_process(watch, offline)
    found = []
    number = 0
    for batch in arguments.batches:
        runs: list[dict[str, float]] = []
        for _ in range(arguments.rounds + 1):
            wanted = calls(batch, 1, 10_000 + number)
            number += batch
            watch.seconds.clear()
            began = time.perf_counter()
            pictures = [Image.open(BytesIO(one.file)) for one in wanted]
            for picture in pictures:
                picture.load()
            watch.seconds["read"] = time.perf_counter() - began
            mode = "force" if arguments.max_tokens == 1 else "generate"
            questions = [
                Question(one.questions[0], picture, mode=mode, max_tokens=arguments.max_tokens)
                for picture, one in zip(pictures, wanted, strict=True)
            ]
            engine.ask(questions)
            watch.seconds["rest"] = time.perf_counter() - began - sum(watch.seconds.values())
            runs.append({part: 1e3 * watch.seconds[part] / batch for part in PARTS})
        kept = runs[1:]  # the first is the warm-up
        ms = {part: statistics.median(run[part] for run in kept) for part in PARTS}
        found.append({"batch": batch, "ms": ms})
    return found


def watch_model(model: Any, watch: Stopwatch) -> None:
    """Put the stopwatch on the parts of `LISAForCausalLM`."""

    def phase(
        input_ids: Any, positions: Any, between: Any = None, inputs_embeds: Any = None, **more: Any
    ) -> str:
        # A step of an answer has one row per question; a prompt has an image's more.
        return "prefill" if len(positions) >= model.config.num_image_tokens else "decode"

    watch.on(model, "forward", phase)
    watch.on(model, "image_features", "clip")
    watch.on(model.masks, "encode", "sam")
    watch.on(model.masks, "decode", "mask decode")
    watch.on(model.language_model, "compute_logits", "head")
    watch.on(model.recorder, "record", "readout")


def watch_process(watch: Stopwatch, offline: Any) -> None:
    """Put it on what runs in the API's process."""
    from vllm_csp.models.processor import LisaProcessor

    watch.on(LisaProcessor, "_call_hf_processor", "preprocess")
    watch.on(offline, "json_masks", "encode answer")


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    names = ("max_tokens", "rounds", "kv_mib")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    return [*options, *model_flags(arguments), "--batches", *map(str, arguments.batches)]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench waterfall",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--policies", nargs="+", default=["dense", "csp-65"], choices=POLICIES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--max-tokens", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kv-mib", type=int, default=1024, help="KV cache in MiB; 0: vLLM's.")
    parser.add_argument("--result", default="waterfall", help="Name of the files.")
    parser.add_argument("--cell", choices=POLICIES, help=argparse.SUPPRESS)
    add_model_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
