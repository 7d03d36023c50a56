"""A real engine inside the test process, driven step by step, and a probe on its decoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.in_process import in_process
from tests.staged.plans import Prompt
from tests.staged.selection import TOKENS
from vllm_csp.images import image_key
from vllm_csp.kv.spec import StageManager
from vllm_csp.kv.tracker import SCHEDULE_KEY, SEED_KEY
from vllm_csp.models.lisa import LISAForCausalLM
from vllm_csp.sam.embedding_cache import ImageEmbedding
from vllm_csp.serving.segmenter import Segmenter

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 16,
    "block_size": 32,
    "num_gpu_blocks_override": 512,
    "kv_cache_memory_bytes": 1 << 26,
    "disable_log_stats": False,
    # For dense engines: every row shall be computed. Staged ones switch it off themselves.
    "enable_prefix_caching": False,
}

# SAM has no part in what is tested here: an image is embedded once for all engines.
_embeddings: dict[tuple[str, str], ImageEmbedding] = {}


@dataclass
class Noted:
    """What the engine did for one output: one entry per step, positions with rows [T, D].

    tokens: generated. entering: residual stream by stage; final: after the last norm; kept: image
    tokens of each stage, per prefill.
    """

    tokens: list[int] = field(default_factory=list)
    entering: dict[int, list[tuple[list[int], Tensor]]] = field(default_factory=dict)
    final: list[tuple[list[int], Tensor]] = field(default_factory=list)
    kept: list[list[list[int]]] = field(default_factory=list)


@dataclass
class Step:
    """One engine step, by request.

    fed: tokens of this step. computed: tokens before it. blocks: held during it, per KV group.
    slots: where each layer's keys and values went, rows of all requests in `order`.
    """

    fed: dict[str, int]
    computed: dict[str, int]
    blocks: dict[str, list[list[int]]]
    order: list[str] = field(default_factory=list)
    slots: dict[str, list[int]] = field(default_factory=dict)


class Engine:
    """`Segmenter` with its engine core in reach.

    `first_layers` says where the probe's stages begin, also in a dense engine.
    """

    def __init__(self, segmenter: Segmenter, first_layers: Sequence[int]) -> None:
        self.segmenter = segmenter
        self.llm = segmenter.llm
        core = segmenter.llm.llm_engine.engine_core.engine_core
        self.scheduler: Any = core.scheduler
        self.model_runner: Any = core.model_executor.driver_worker.worker.model_runner
        self.model: LISAForCausalLM = self.model_runner.get_model()
        self.noted: defaultdict[str, Noted] = defaultdict(Noted)
        self.steps: list[Step] = []
        self.preempted: list[str] = []
        self._first_layers = list(first_layers)
        # The running step's requests in batch order, and what was computed of each before it.
        self._rows: Callable[[], tuple[Sequence[str], Sequence[int]]]
        self._watch()

    # --- requests ---

    def add(
        self,
        prompt: Prompt,
        max_tokens: int = 16,
        n: int = 1,
        schedule: str | None = None,
        priority: int = 0,
    ) -> list[str]:
        """Queue a greedy request (sampled when n > 1); returns the internal names of its outputs.

        schedule: the request's own one as JSON.
        """
        from vllm import SamplingParams

        before = set(self.scheduler.requests)
        ids = list(prompt.ids)
        given: dict[str, Any] = {"prompt_token_ids": ids}
        if prompt.image is not None:
            assert prompt.image_start is not None
            del ids[prompt.image_start + 1 : prompt.image_start + TOKENS]
            given["multi_modal_data"] = {"image": prompt.image}
            given["multi_modal_uuids"] = {"image": image_key(prompt.image)}
        extra_args: dict[str, Any] = {}
        if prompt.given_seed is not None:
            extra_args[SEED_KEY] = prompt.given_seed
        if schedule is not None:
            extra_args[SCHEDULE_KEY] = schedule
        params = SamplingParams(
            temperature=0.0 if n == 1 else 1.0,
            n=n,
            seed=None if n == 1 else 11,
            max_tokens=max_tokens,
            ignore_eos=True,
            detokenize=False,
            extra_args=extra_args or None,
        )
        self.llm.enqueue([given], [params], use_tqdm=False, priority=[priority])
        return sorted(set(self.scheduler.requests) - before)

    def step(self) -> list[Any]:
        """One engine step; its request outputs."""
        return self.llm.llm_engine.step()

    def finish(self) -> None:
        """Step until idle."""
        while self.llm.llm_engine.has_unfinished_requests():
            self.step()

    def generate(self, prompts: Sequence[Prompt], max_tokens: int = 16) -> list[Noted]:
        """Run prompts as one batch; what was noted of each, in order."""
        names = [self.add(prompt, max_tokens)[0] for prompt in prompts]
        self.finish()
        return [self.noted[name] for name in names]

    def abort(self, names: Sequence[str]) -> None:
        """Abort outputs by internal name."""
        self.llm.llm_engine.abort_request(list(names), internal=True)

    # --- KV cache ---

    @property
    def managers(self) -> list[Any]:
        """One per KV group."""
        return list(self.scheduler.kv_cache_manager.coordinator.single_type_managers)

    @property
    def pool(self) -> Any:
        """The block pool of all groups."""
        return self.scheduler.kv_cache_manager.block_pool

    def blocks(self, name: str) -> list[list[int]]:
        """Block ids that a request holds, per KV group."""
        return [list(one) for one in self.scheduler.kv_cache_manager.get_block_ids(name)]

    def leftovers(self) -> dict[str, int]:
        """What is still noted or held for requests."""
        stages = [one for one in self.managers if isinstance(one, StageManager)]
        return {
            "requests": len(self.scheduler.requests),
            "dropped": sum(len(one._dropped) for one in stages),
            "tables": sum(len(one.req_to_blocks) for one in self.managers),
        }

    # --- the probe ---

    def _watch(self) -> None:
        execute, schedule = self.model_runner.execute_model, self.scheduler.schedule
        update = self.scheduler.update_from_output
        self._current: Any = None

        def noting_execute(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            self._current = scheduled
            output = execute(scheduled, *args, **kwargs)
            if scheduled.total_num_scheduled_tokens:
                self._note_step()
            return output

        def noting_schedule(*args: Any, **kwargs: Any) -> Any:
            scheduled = schedule(*args, **kwargs)
            fed = dict(scheduled.num_scheduled_tokens)
            requests = self.scheduler.requests
            # The scheduler has counted this step's tokens already.
            computed = {name: requests[name].num_computed_tokens - fed[name] for name in fed}
            self.steps.append(Step(fed, computed, {name: self.blocks(name) for name in fed}))
            self.preempted += sorted(scheduled.preempted_req_ids or ())
            return scheduled

        def noting_update(*args: Any, **kwargs: Any) -> Any:
            outputs = update(*args, **kwargs)
            for client in outputs.values():
                for one in client.outputs:
                    self.noted[one.request_id].tokens.extend(one.new_token_ids)
            return outputs

        self.model_runner.execute_model = noting_execute
        self._watch_rows()
        self.scheduler.schedule = noting_schedule
        self.scheduler.update_from_output = noting_update
        llama = self.model.language_model.model
        self._hooks = [llama.norm.register_forward_hook(self._note_final)]
        for stage, first in enumerate(self._first_layers):
            hook = self._note_entering(stage)
            self._hooks.append(llama.layers[first].register_forward_pre_hook(hook))

    def _watch_rows(self) -> None:
        """Runner V1 keeps its batch, V2 makes one for each step."""
        if hasattr(self.model_runner, "input_batch"):
            batch = self.model_runner.input_batch
            self._rows = lambda: (batch.req_ids, batch.num_computed_tokens_cpu)
            return
        prepare = self.model_runner.prepare_inputs

        def noting_prepare(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            self._rows = lambda: (made.req_ids, made.num_computed_tokens_np)
            return made

        self.model_runner.prepare_inputs = noting_prepare

    def close(self) -> None:
        """Let go of the model: vLLM keeps a language model while it refers to ours."""
        for hook in self._hooks:
            hook.remove()

    def _note_entering(self, stage: int) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, Tensor, Tensor | None]) -> None:
            if self._current is None:
                return
            positions, hidden, residual = inputs
            states = hidden if residual is None else hidden + residual
            self._positions = positions.tolist()
            for name, part in self._split(self._positions):
                rows = (self._positions[part], states[part].clone())
                self.noted[name].entering.setdefault(stage, []).append(rows)

        return hook

    def _note_final(self, module: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        if self._current is None:
            return
        for name, part in self._split(self._positions):
            rows = (self._positions[part], output[0][part].clone())
            self.noted[name].final.append(rows)

    def _split(self, positions: list[int]) -> Iterator[tuple[str, slice]]:
        """Rows of each request of the running step, told apart by their positions."""
        names, computed = self._rows()
        begin = 0
        for name, before in zip(list(names), computed, strict=False):
            first = int(before)
            last = first + self._current.num_scheduled_tokens[name]
            end = begin
            while end < len(positions) and first <= positions[end] < last:
                if end > begin and positions[end] <= positions[end - 1]:
                    break
                end += 1
            yield name, slice(begin, end)
            begin = end

    def _note_step(self) -> None:
        step, runner = self.steps[-1], self.model.runner
        step.order = list(self._rows()[0])
        if runner is None:
            return
        plan = runner.tracker.current_plan
        step.slots = {name: one.tolist() for name, one in runner.tracker.slot_mappings.items()}
        for place, row in enumerate(plan.image_requests.tolist()):
            name = step.order[row]
            kept = [stage[place].tolist() for stage in runner.selected]
            self.noted[name].kept.append(kept)


@contextmanager
def running(
    checkpoint: Path, csp: dict[str, Any], first_layers: Sequence[int] = (0,), **options: Any
) -> Iterator[Engine]:
    """An engine in this process; nothing of it is left behind."""
    threads = torch.get_num_threads()
    # Everything here is too small for more.
    torch.set_num_threads(1)
    options = {**OPTIONS, **options}
    with in_process(str(checkpoint), additional_config={"csp": csp}, **options) as segmenter:
        engine = Engine(segmenter, first_layers)
        _share_embeddings(engine.model, str(checkpoint))
        try:
            yield engine
        finally:
            engine.close()
    torch.set_num_threads(threads)


def _share_embeddings(model: LISAForCausalLM, checkpoint: str) -> None:
    cache = model.masks.embeddings
    for (folder, key), embedding in _embeddings.items():
        if folder == checkpoint:
            cache.put(key, embedding)
    put = cache.put

    def noting_put(key: str, entry: ImageEmbedding) -> None:
        _embeddings[checkpoint, key] = entry
        put(key, entry)

    cache.put = noting_put  # type: ignore[method-assign]
