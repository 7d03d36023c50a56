"""Model runner V2 (CUDA): keeps the tracker current through vLLM's `ModelState` hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_csp.kv.tracker import BatchTracker, TrackedRequest, tracker_of


class StagedModelState(DefaultModelState):
    """Knows each request's image, and tells the tracker which request each batch row is."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        model: nn.Module,
        encoder_cache: EncoderCache | None,
        device: torch.device,
    ) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        tracker = tracker_of(vllm_config.instance_id)
        assert tracker is not None, "staged model without a tracker"
        self._tracker: BatchTracker = tracker
        self._requests: dict[str, TrackedRequest] = {}

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        """Note a request, new or resumed after preemption."""
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        self._requests[new_req_data.req_id] = self._tracker.describe(
            new_req_data.prompt_token_ids, None if params is None else params.extra_args
        )

    def remove_request(self, req_id: str) -> None:
        """Forget a request."""
        super().remove_request(req_id)
        self._requests.pop(req_id, None)

    def prepare_attn(self, input_batch: InputBatch, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Build metadata; the staged builders plan the step from the tracker's rows.

        Rows of the dummy batches that vLLM warms up with belong to no request.
        """
        self._tracker.begin_step()
        self._tracker.rows = {
            row: self._requests[req_id]
            for row, req_id in enumerate(input_batch.req_ids)
            if req_id in self._requests
        }
        metadata: dict[str, Any] = super().prepare_attn(input_batch, *args, **kwargs)
        return metadata
