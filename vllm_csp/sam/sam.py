"""The SAM of a LISA checkpoint: preprocessing, encoder, prompts, decoder, weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from vllm_csp.sam.encoder_kind import build_encoder
from vllm_csp.sam.geometry import SamGeometry
from vllm_csp.sam.mask_decoder import MaskDecoder
from vllm_csp.sam.padding import Extent, LocalStack
from vllm_csp.sam.prompt_encoder import PromptEncoder
from vllm_csp.sam.resized_positions import fitted
from vllm_csp.sam.vit_geometry import VIT_H

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
STEP_COUNT = ".num_batches_tracked"


class Sam(nn.Module):
    """SAM prompted by text embeddings, for several images at once.

    State-dict names are those of Meta's SAM checkpoints (LISA's less `model.visual_model.`).
    Upstream: LISA `model/segment_anything/modeling/sam.py` and the calls in `model/LISA.py`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, geometry: SamGeometry = VIT_H) -> None:
        super().__init__()
        self.geometry = geometry
        self.image_encoder = build_encoder(geometry)
        self.prompt_encoder = PromptEncoder(geometry)
        self.mask_decoder = MaskDecoder(geometry)
        self.register_buffer("pixel_mean", _per_channel(PIXEL_MEAN), persistent=False)
        self.register_buffer("pixel_std", _per_channel(PIXEL_STD), persistent=False)
        # A BatchNorm's count of training steps changes nothing here, and may be left out.
        self._absent = {name for name in self.state_dict() if not name.endswith(STEP_COUNT)}

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and so of embeddings and logits."""
        return self.mask_decoder.iou_token.weight.dtype

    @property
    def image_size(self) -> int:
        """Side of the padded input square, in pixels."""
        return self.geometry.image_size

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mask_decoder.iou_token.weight.device

    def preprocess(self, pixels_u8: Sequence[Tensor]) -> Tensor:
        """Normalise and pad a batch of images.

        `pixels_u8`: per image uint8 [h, w, 3] RGB, long side already S (`images.sam_resize`).
        Returns: [B, 3, S, S] in the module's dtype; padding, right and below, is 0 after
        normalising as in LISA's `chat.py`.
        Raises: ValueError for a shape or dtype that does not fit.
        """
        side = self.geometry.image_size
        batch = torch.zeros((len(pixels_u8), 3, side, side), dtype=self.dtype, device=self.device)
        for row, image in zip(batch, pixels_u8, strict=True):
            if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[2] != 3:
                raise ValueError(
                    f"SAM pixels must be uint8 [h, w, 3], not {image.dtype} {list(image.shape)}"
                )
            height, width, _ = image.shape
            if max(height, width) > side:
                raise ValueError(f"SAM pixels are {height} x {width}, larger than {side}")
            channels = image.to(self.device).permute(2, 0, 1).float()
            row[:, :height, :width] = (channels - self.pixel_mean) / self.pixel_std
        return batch

    def encode(self, pixels: Tensor, seen: Extent | None = None) -> Tensor:
        """Encode preprocessed images.

        `pixels`: [B, 3, S, S], see `preprocess`. `seen`: height and width beyond which all of them
        are padding, which then costs less; results are the same up to rounding. Not used in
        training or with gradients.
        Returns: [B, C, g, g], g cells per side.
        """
        if self.training or torch.is_grad_enabled():
            seen = None
        embeddings: Tensor = self.image_encoder(pixels, seen)
        return embeddings

    def decode(
        self,
        image_embeddings: Tensor | Sequence[Tensor],
        queries: Tensor,
        owner: Sequence[int] | None = None,
        rows_at_once: int | None = None,
        seen: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Decode one mask per query, over any mix of images.

        `image_embeddings`: I x [C, h, w]; query q is about image `owner[q]`, or q without `owner`.
        `queries`: [Q, C], any float dtype. `rows_at_once` bounds memory; like Q itself it changes
        results by rounding only. `seen`: see `MaskDecoder.forward`.
        Returns: logits [Q, 4h, 4w] in the module's dtype. LISA never trains the head that predicts
        IoU: see `postprocess.masks_from_logits` for a score.
        Raises: ValueError when the two disagree on Q.
        """
        rows = queries.shape[0]
        named = len(image_embeddings) if owner is None else len(owner)
        if named != rows:
            raise ValueError(f"{named} image embeddings for {rows} queries")
        sparse, dense = self.prompt_encoder(queries)
        logits: Tensor = self.mask_decoder(
            [embedding.to(self.dtype) for embedding in image_embeddings],
            self.prompt_encoder.get_dense_pe(),
            sparse,
            dense,
            owner,
            rows_at_once,
            seen,
        )
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Copy weights in, cast to the module's dtype.

        `weights`: names without `model.visual_model.`; a checkpoint in several files may come in
        several calls, so finish with `require_complete`. Positions of another image size than the
        geometry's are interpolated.
        Returns: the names loaded by this call.
        Raises: ValueError for an unknown name or a wrong shape; RuntimeError while the module is on
        the meta device (call `to_empty` first).
        """
        if self.device.type == "meta":
            raise RuntimeError("SAM is on the meta device: call to_empty(device=...) first")
        own = self.state_dict()
        loaded = set()
        for name, weight in weights:
            if name not in own:
                raise ValueError(f"unexpected SAM weight {name}")
            weight = fitted(name, weight, own[name].shape)
            if own[name].shape != weight.shape:
                raise ValueError(
                    f"SAM weight {name} has shape {list(weight.shape)}, "
                    f"expected {list(own[name].shape)}"
                )
            own[name].copy_(weight)
            loaded.add(name)
        self._absent -= loaded
        self.prompt_encoder.forget_dense_pe()
        self._forget_padding()
        return loaded

    def _forget_padding(self) -> None:
        local = self.image_encoder.local
        assert isinstance(local, LocalStack)
        local.forget()

    def require_complete(self) -> None:
        """Check that every weight was loaded, the Gaussian matrix buffer included.

        Raises: ValueError naming the first missing ones.
        """
        if self._absent:
            some = ", ".join(sorted(self._absent)[:3])
            raise ValueError(f"{len(self._absent)} SAM weights are missing, among them {some}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The constants must stay exact: a cast to bf16 would round them, to_empty would lose them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._forget_padding()
        self.pixel_mean = _per_channel(PIXEL_MEAN).to(self.device)
        self.pixel_std = _per_channel(PIXEL_STD).to(self.device)
        return self


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
