"""Tells the KV managers how many image tokens of a request each stage leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request

from vllm_csp.kv.spec import StageManager, StageSpec
from vllm_csp.kv.tracker import NO_IMAGE_KEY, SAME_IMAGE_KEY
from vllm_csp.schedules import staged_schedule
from vllm_csp.tokens import Schedule


class StageScheduler(AsyncScheduler):
    """vLLM's scheduler; requests with an image need fewer slots in stages that keep fewer tokens.

    Kept counts are fixed by the schedule, so blocks are sized before any score exists.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        schedule = staged_schedule(self.vllm_config)
        assert schedule is not None
        self._schedule: Schedule = schedule

    def add_request(self, request: Request) -> None:
        """Note the image of a new request before any block is counted for it."""
        images = [one for one in request.mm_features or () if one.modality == "image"]
        if images:
            for manager, stage in self._managers():
                dropped = self._schedule.num_image_tokens - self._schedule.kept_per_stage[stage]
                manager.drop(request.request_id, dropped)
        if request.sampling_params is not None:
            # The worker sees only token ids: the same for all images, and a client may send them
            # without one. Both are always said, whatever a client has put there.
            params = request.sampling_params
            same_image = images[0].identifier if images else None
            told = {NO_IMAGE_KEY: not images, SAME_IMAGE_KEY: same_image}
            params.extra_args = {**(params.extra_args or {}), **told}
        super().add_request(request)

    def _try_schedule_encoder_inputs(
        self,
        request: Request,
        num_computed_tokens: int,
        num_new_tokens: int,
        encoder_compute_budget: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[list[int], int, int, list[int], list[int]]:
        """Let a prompt wait whose image has no room in the encoder's budget or cache.

        vLLM would schedule the text before the image, also with chunked prefill off; a stage needs
        the prompt whole.
        """
        found: tuple[list[int], int, int, list[int], list[int]]
        found = super()._try_schedule_encoder_inputs(
            request, num_computed_tokens, num_new_tokens, encoder_compute_budget, *args, **kwargs
        )
        if found[1] < num_new_tokens:
            return [], 0, encoder_compute_budget, [], []
        return found

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        for manager, _ in self._managers():
            manager.forget(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def _managers(self) -> Iterator[tuple[StageManager, int]]:
        for manager in self.kv_cache_manager.coordinator.single_type_managers:
            if isinstance(manager, StageManager):
                assert isinstance(manager.kv_cache_spec, StageSpec)
                yield manager, manager.kv_cache_spec.stage
