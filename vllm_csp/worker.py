"""Methods added to vLLM's workers, called by the API process through `collective_rpc`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vllm_csp.allocator import give_back_surplus
from vllm_csp.mask_calls import ImagePixels, MaskJob, WorkerReply
from vllm_csp.timeline import Interval

if TYPE_CHECKING:
    from vllm_csp.models.lisa import LISAForCausalLM

# Under vLLM's own name, or its logging would leave lines out.
logger = logging.getLogger(f"vllm.plugins.{__name__}")


class MaskWorkerExtension:
    """Mixed into the worker class (`worker_extension_cls`)."""

    model_runner: Any
    _csp_told: dict[str, float]

    def csp_decode_masks(
        self, jobs: list[MaskJob], images: list[ImagePixels], released: list[str]
    ) -> WorkerReply | None:
        """Decode the masks of many answers in one batch, then forget the `released` requests.

        `images` are embedded first: pixels for jobs that an earlier call found without embedding.
        A result is {"size", "masks", "scores", "kept_tokens", "spans"}, {"missing": "image"} if
        the pixels must be sent again, {"missing": "request"} if its queries are gone, or {"failed":
        error}, for want of memory for example. None on ranks that decode nothing.
        """
        model: LISAForCausalLM = self.model_runner.get_model()
        results = None
        try:
            if model.decodes_masks:
                failures = self._encode(model, images)
                results = self._decode(model, jobs, failures)
        finally:
            for key in released:
                model.recorder.store.release(key)
        give_back_surplus()
        return None if results is None else {"results": results, "counters": self._csp_counters()}

    def csp_held(self) -> dict[str, float]:
        """What is held for requests, and what the caches of images have done since start."""
        model: LISAForCausalLM = self.model_runner.get_model()
        cache = model.masks.embeddings
        return {
            "streams": len(model.recorder.store),
            "embeddings": len(cache),
            "host_embeddings": cache.num_on_host,
            "pinned": cache.num_pinned,
            "embedding_hits": cache.hits,
            "embedding_host_hits": cache.host_hits,
            "embedding_misses": cache.misses,
            "encode_seconds": model.masks.encode_seconds,
            "shared_images": 0 if model.runner is None else model.runner.shared_images,
        }

    def _csp_counters(self) -> dict[str, float]:
        held = self.csp_held()
        told: dict[str, float] = self.__dict__.get("_csp_told", {})
        names = {
            "new_hits": "embedding_hits",
            "new_host_hits": "embedding_host_hits",
            "new_misses": "embedding_misses",
            "new_encode_seconds": "encode_seconds",
            "new_shared_images": "shared_images",
        }
        new = {name: held[total] - told.get(total, 0.0) for name, total in names.items()}
        self._csp_told = held
        return {**held, **new}

    @staticmethod
    def _encode(model: LISAForCausalLM, images: list[ImagePixels]) -> dict[str, str]:
        """Embed images one by one; by image key the name of the error of those that failed.

        One that needs more memory than there is must not take the others' masks with it.
        """
        device = next(model.visual_model.parameters()).device
        failures: dict[str, str] = {}
        for one in images:
            pixels = np.frombuffer(one["pixels"], np.uint8).reshape(one["shape"]).copy()
            height, width = one["original_size"]
            try:
                model.masks.encode(
                    keys=[one["image_key"]],
                    pixels=[torch.from_numpy(pixels).to(device)],
                    original_sizes=[(height, width)],
                )
            except RuntimeError as error:
                logger.exception("an image could not be embedded")
                failures[one["image_key"]] = type(error).__name__
        return failures

    @staticmethod
    def _decode(
        model: LISAForCausalLM, jobs: list[MaskJob], failures: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = [{"missing": "request"} for _ in jobs]
        found: list[int] = []
        embeddings, queries, kept = [], [], []
        intervals: list[list[Interval]] = []
        for number, job in enumerate(jobs):
            stream = model.recorder.store.find(
                job["request_key"],
                job["token_ids"],
                max(job["indexes"]),
                of_several=job["of_several"],
            )
            if stream is None:
                continue
            embedding = model.masks.embeddings.peek(job["image_key"])
            if embedding is None:
                error = failures.get(job["image_key"])
                results[number] = {"failed": error} if error else {"missing": "image"}
                continue
            found.append(number)
            embeddings.append(embedding)
            queries.append(stream.queries(job["indexes"]))
            kept.append([one.tolist() for one in stream.kept_tokens] if job["wants_tokens"] else [])
            encoded = model.timeline.of_image(job["image_key"])
            intervals.append([*encoded, *stream.intervals])
        decoding: list[Interval] = []
        with model.timeline.measured("vllm_csp.mask_decode", decoding, answers=len(found)):
            mask_sets = model.masks.decode_each(embeddings, queries)
        for number, mask_set, tokens, before in zip(found, mask_sets, kept, intervals, strict=True):
            if isinstance(mask_set, str):
                results[number] = {"failed": mask_set}
                continue
            results[number] = {
                "size": list(mask_set.size),
                "masks": mask_set.masks,
                "scores": mask_set.scores,
                "kept_tokens": tokens,
                "spans": (
                    [one.span() for one in [*before, *decoding]]
                    if jobs[number]["wants_spans"]
                    else []
                ),
            }
        return results
