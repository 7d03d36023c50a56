"""Records mask queries at the one place both model runners offer to plugins: logits processors.

It changes no logits. Runner V1 (CPU) and V2 (CUDA) have different interfaces; one class has both,
because the engine flag that names it is set before the runner is chosen. On runner V1 it also keeps
the `BatchTracker` of staged policies current; on V2 `kv/model_state.py` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as LogitsProcessorV1
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2

from vllm_csp.kv.tracker import SCHEDULE_KEY, SEED_KEY, parse_schedule, tracker_of
from vllm_csp.readout.recorder import Recorder, picked, recorder_of
from vllm_csp.readout.request_keys import is_given
from vllm_csp.readout.store import Stream

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

# Names in `SamplingParams.extra_args`.
REQUEST_KEY = "csp_request"
IMAGE_KEY = "csp_image"


class ReadoutProcessor(LogitsProcessorV1, LogitsProcessorV2):
    """Follows the batch and hands each sampling row's hidden state to the recorder."""

    def __init__(self, vllm_config: VllmConfig, *runner_args: Any) -> None:
        """V1 passes (device, is_pin_memory), V2 passes (request states,)."""
        self._instance_id = vllm_config.instance_id
        self._request_states = runner_args[0] if len(runner_args) == 1 else None
        # Batch index (V1) or request slot (V2) -> stream, and output tokens (V1).
        self._streams: dict[int, Stream] = {}
        self._outputs: dict[int, tuple[list[int] | None, list[int]]] = {}

    @property
    def _recorder(self) -> Recorder:
        return recorder_of(self._instance_id)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse what would stop the engine, for every request on every route.

        Raises `ValueError` (a 400) with the reason.
        """
        if sampling_params.prompt_logprobs is not None:
            raise ValueError(
                "`prompt_logprobs` and `echo` are not supported: image rows are no tokens of the "
                "vocabulary"
            )
        if sampling_params.structured_outputs is not None:
            raise ValueError(
                "structured outputs (`response_format`, `structured_outputs`) are not supported by "
                "LISA's tokenizer"
            )
        args = sampling_params.extra_args or {}
        if args.keys() & {REQUEST_KEY, IMAGE_KEY} and not is_given(args.get(REQUEST_KEY)):
            raise ValueError(f"`{REQUEST_KEY}` and `{IMAGE_KEY}` are the server's own")
        seed = args.get(SEED_KEY, 0)
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ValueError(f"`{SEED_KEY}` must be an integer from 0 to 2^63 - 1")
        if SCHEDULE_KEY in args:
            if not isinstance(args[SCHEDULE_KEY], str):
                raise ValueError(f"`{SCHEDULE_KEY}` must be a schedule as JSON text")
            parse_schedule(args[SCHEDULE_KEY])

    def is_argmax_invariant(self) -> bool:
        """False, or greedy batches would skip the recording."""
        return False

    # --- runner V1 ---

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move in the batch; called once per step."""
        tracker = tracker_of(self._instance_id)
        if tracker is not None:
            tracker.begin_step()
        if batch_update is None:
            return
        tracked = {} if tracker is None else tracker.rows
        tables: tuple[dict[int, Any], ...] = (self._streams, self._outputs, tracked)
        for index in batch_update.removed:
            for table in tables:
                table.pop(index, None)
        for index, params, prompt_ids, output_ids in batch_update.added:
            self._outputs[index] = (prompt_ids, output_ids)
            self._enter(index, params, len(output_ids))
            if tracker is not None:
                tracked[index] = tracker.describe(prompt_ids, params.extra_args)
        for source, target, direction in batch_update.moved:
            for table in tables:
                _move(table, source, target, swap=direction == MoveDirectionality.SWAP)

    # --- runner V2 ---

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Take over a request slot."""
        states = self._request_states
        assert states is not None
        resumed = int(states.prefill_len.np[req_idx]) - int(states.prompt_len.np[req_idx])
        self._enter(req_idx, sampling_params, resumed)
        return req_idx in self._streams

    # --- both ---

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        """Record this step's rows; logits [rows, vocabulary] pass through."""
        slots = range(logits.shape[0]) if ctx is None else ctx.idx_mapping_np.tolist()
        indexes = [self._output_index(row, slot, ctx) for row, slot in enumerate(slots)]
        rows = [
            row for row, slot in enumerate(slots) if slot in self._streams and indexes[row] >= 0
        ]
        if rows:
            streams = [self._streams[slots[row]] for row in rows]
            for row, stream in zip(rows, streams, strict=True):
                stream.truncate(indexes[row])
            fed = [self._fed(row) for row in rows] if ctx is None else picked(ctx.input_ids, rows)
            self._recorder.record(streams, rows, logits.shape[0], fed)
            for row, stream in zip(rows, streams, strict=True):
                stream.kept_tokens = self._recorder.kept_tokens(row) or stream.kept_tokens
                if indexes[row] == 0:
                    stream.intervals.extend(self._recorder.intervals())
        return logits

    def _output_index(self, row: int, slot: int, ctx: LogitsContext | None) -> int:
        """Which output token the row predicts, or -1.

        The row of an unfinished prefill is sampled and thrown away; after a preemption the prefill
        has the answer's beginning in it. V2 gives such a row -1, V1 the index of the token that the
        last chunk predicts, whose row then replaces it.
        """
        states = self._request_states
        if ctx is None:
            return len(self._outputs[slot][1]) if slot in self._outputs else 0
        assert states is not None
        visible = int(ctx.seq_lens_upper_bound_np[row])
        if visible < int(states.prefill_len.np[slot]):
            return -1
        return visible - int(states.prompt_len.np[slot])

    def _fed(self, index: int) -> int:
        prompt_ids, output_ids = self._outputs[index]
        return output_ids[-1] if output_ids else (prompt_ids or [-1])[-1]

    def _enter(self, slot: int, params: SamplingParams, num_output: int) -> None:
        self._streams.pop(slot, None)
        args = params.extra_args or {}
        if REQUEST_KEY in args:
            # V1 keeps a request's parameters as one object, also while it is out of the batch.
            stream = self._recorder.store.open(
                args[REQUEST_KEY], args.get(IMAGE_KEY, ""), num_output, owner=params
            )
            if stream is not None:
                self._streams[slot] = stream


def _move(table: dict[int, Any], source: int, target: int, *, swap: bool) -> None:
    moved, replaced = table.pop(source, None), table.pop(target, None)
    if moved is not None:
        table[target] = moved
    if swap and replaced is not None:
        table[source] = replaced
