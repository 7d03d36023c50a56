"""TinyViT, MobileSAM's image encoder: SAM's embedding of an image at a small part of the cost."""

from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.sam.conv_norm import ConvNorm, fold
from vllm_csp.sam.neck import apply_neck, build_neck
from vllm_csp.sam.padding import Convolution, Extent, LocalLayers, LocalStack, Windows
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM, TinyVitGeometry

EXPANSION = 4
"""Hidden width of convolution blocks and MLPs, in block widths; the same in every TinyViT."""


class TinyVitEncoder(nn.Module):
    """MobileSAM's image encoder: normalised pixels to image embeddings.

    A drop-in for SAM's ViT, whose embeddings it was distilled from. Parameter names are those of
    MobileSAM's checkpoint below `image_encoder.`, without the classifier that SAM never uses.
    Sources: arXiv 2207.10666 (blocks), arXiv 2306.14289 (resolution, neck).
    """

    def __init__(self, geometry: TinyVitGeometry = MOBILE_SAM) -> None:
        super().__init__()
        self.geometry = geometry
        dims, folded = geometry.dims, geometry.folded
        self.patch_embed = PatchEmbedding(dims[0], folded)
        first = ConvStage(dims[0], dims[1], geometry.depths[0], folded)
        stages = []
        for stage, (heads, window) in enumerate(
            zip(geometry.heads, geometry.windows, strict=True), start=1
        ):
            blocks = [
                AttentionBlock(dims[stage], heads, window, folded)
                for _ in range(geometry.depths[stage])
            ]
            is_last = stage == len(geometry.heads)
            # SAM's decoder wants 1/16 of the image's side: the last step between stages keeps it.
            stride = 1 if stage == len(geometry.heads) - 1 else 2
            following = (
                None if is_last else Downsample(dims[stage], dims[stage + 1], stride, folded)
            )
            stages.append(AttentionStage(blocks, following))
        self.layers = nn.ModuleList([first, *stages])
        self.neck = build_neck(dims[-1], geometry.out_channels)
        beginning = nn.Sequential(self.patch_embed, first)
        self.local = LocalStack(
            [
                LocalLayers(beginning, [*self.patch_embed.sight, *first.sight]),
                *(LocalLayers(one, one.sight) for one in stages),
            ]
        )

    def forward(self, pixels: Tensor, seen: Extent | None = None) -> Tensor:
        """Encode a batch of images.

        `pixels`: [B, 3, S, S], normalised and padded as `Sam.preprocess` does, in the dtype of the
        weights. `seen`: the rows and columns beyond which all is padding, if that is known.
        Returns: [B, C, S / 16, S / 16], same dtype.
        """
        # Channels last: attention then reads the convolutions' output without copying it.
        features = self.local(pixels.contiguous(memory_format=torch.channels_last), seen)
        return apply_neck(self.neck, features).contiguous()

    def folded(self) -> Self:
        """The same encoder with its BatchNorms folded into their convolutions, to be stored small.

        Its weights are copies, named `c.weight` and `c.bias` instead of `c.weight` and `bn.*`.
        """
        weights = self.state_dict()
        for name, module in self.named_modules():
            if isinstance(module, ConvNorm) and module.bn is not None:
                for own in module.bn.state_dict():
                    del weights[f"{name}.bn.{own}"]
                weight, bias = fold(module.c.weight, module.bn)
                weights |= {f"{name}.c.weight": weight, f"{name}.c.bias": bias}
        twin = type(self)(replace(self.geometry, folded=True))
        twin.to(next(self.neck.parameters())).load_state_dict(weights)
        return twin.train(self.training)


class PatchEmbedding(nn.Module):
    """Two strided convolutions: pixels to cells of 4 x 4 pixels."""

    sight = (Convolution(3, 2, 1), Convolution(3, 2, 1))

    def __init__(self, dim: int, folded: bool) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, dim // 2, 3, 2, 1, folded),
            nn.GELU(),
            ConvNorm(dim // 2, dim, 3, 2, 1, folded),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, dim, S / 4, S / 4]."""
        first, _, second = self.seq
        return second(first(pixels, gelu=True))


class InvertedBottleneck(nn.Module):
    """The convolution block of the first stage (MobileNetV2's)."""

    def __init__(self, dim: int, folded: bool) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        self.conv1 = ConvNorm(dim, hidden, 1, 1, 1, folded)
        self.conv2 = ConvNorm(hidden, hidden, 3, 1, hidden, folded)
        self.conv3 = ConvNorm(hidden, dim, 1, 1, 1, folded)

    def forward(self, features: Tensor) -> Tensor:
        """[B, dim, H, W] -> the same shape."""
        hidden = self.conv2(self.conv1(features, gelu=True), gelu=True)
        return functional.gelu(features + self.conv3(hidden))


class Downsample(nn.Module):
    """Between stages: to the next width and, with stride 2, to half the side."""

    def __init__(self, dim: int, next_dim: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.sight = (Convolution(3, stride, 1),)
        self.conv1 = ConvNorm(dim, next_dim, 1, 1, 1, folded)
        self.conv2 = ConvNorm(next_dim, next_dim, 3, stride, next_dim, folded)
        self.conv3 = ConvNorm(next_dim, next_dim, 1, 1, 1, folded)

    def forward(self, features: Tensor) -> Tensor:
        """[B, dim, H, W] -> [B, next_dim, H / stride, W / stride]."""
        return self.conv3(self.conv2(self.conv1(features, gelu=True), gelu=True))


class ConvStage(nn.Module):
    """The first stage: convolution blocks, then the step to half the side."""

    def __init__(self, dim: int, next_dim: int, depth: int, folded: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(InvertedBottleneck(dim, folded) for _ in range(depth))
        self.downsample = Downsample(dim, next_dim, 2, folded)
        self.sight = (*[Convolution(3, 1, 1)] * depth, *self.downsample.sight)

    def forward(self, features: Tensor) -> Tensor:
        """[B, dim, H, W] -> [B, next_dim, H / 2, W / 2]."""
        for block in self.blocks:
            features = block(features)
        return self.downsample(features)


class AttentionStage(nn.Module):
    """A later stage: attention blocks, then the step to the next stage if there is one."""

    def __init__(self, blocks: list["AttentionBlock"], downsample: Downsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        own: list[Convolution | Windows] = [step for block in blocks for step in block.sight]
        self.sight = (*own, *(() if downsample is None else downsample.sight))

    def forward(self, features: Tensor) -> Tensor:
        """[B, dim, H, W] -> what the next stage takes."""
        for block in self.blocks:
            features = block(features)
        return features if self.downsample is None else self.downsample(features)


class AttentionBlock(nn.Module):
    """Attention within windows, a convolution that crosses them, an MLP."""

    def __init__(self, dim: int, heads: int, window: int, folded: bool) -> None:
        super().__init__()
        self.window = window
        self.sight = (Windows(window), Convolution(3, 1, 1))
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, 1, dim, folded)
        self.mlp = Mlp(dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, dim, H, W] -> the same shape."""
        cells = features.permute(0, 2, 3, 1)
        cells = cells + self._attend(cells)
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = cells + self.mlp(cells)
        return cells.permute(0, 3, 1, 2)

    def _attend(self, cells: Tensor) -> Tensor:
        """[B, H, W, dim] cut into windows and put together again.

        The last windows are filled up with zeros, which the published weights were trained to see.
        """
        batch, height, width, dim = cells.shape
        side = self.window
        cells = functional.pad(cells, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = cells.shape[1] // side, cells.shape[2] // side
        windows = cells.view(batch, rows, side, columns, side, dim).transpose(2, 3)
        seen = self.attn(windows.reshape(-1, side * side, dim))
        seen = seen.view(batch, rows, columns, side, side, dim).transpose(2, 3)
        return seen.reshape(batch, rows * side, columns * side, dim)[:, :height, :width]


class WindowAttention(nn.Module):
    """Multi-head attention in one window, with a learned bias for each distance of two cells."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, cells: Tensor) -> Tensor:
        """[windows, window ** 2, dim] -> the same shape."""
        windows, size, dim = cells.shape
        # Per head: its query, key and value side by side.
        qkv = self.qkv(self.norm(cells)).view(windows, size, self.heads, -1).transpose(1, 2)
        query, key, value = qkv.chunk(3, dim=-1)
        # Four dimensions: of a mask with three, torch on a CPU computes attention step by step.
        seen = functional.scaled_dot_product_attention(query, key, value, self._bias()[None])
        return self.proj(seen.transpose(1, 2).reshape(windows, size, dim))

    def _bias(self) -> Tensor:
        """[heads, window ** 2, window ** 2], by |rows apart| and |columns apart|."""
        place = torch.arange(self.window, device=self.attention_biases.device)
        apart = (place[:, None] - place).abs()
        table = self.attention_biases.view(self.heads, self.window, self.window)
        bias = table[:, apart[:, None, :, None], apart[None, :, None, :]]
        return bias.flatten(3).flatten(1, 2)


class Mlp(nn.Module):
    """The MLP of an attention block, with its norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, EXPANSION * dim)
        self.fc2 = nn.Linear(EXPANSION * dim, dim)

    def forward(self, cells: Tensor) -> Tensor:
        """[..., dim] -> the same shape."""
        return self.fc2(functional.gelu(self.fc1(self.norm(cells))))
