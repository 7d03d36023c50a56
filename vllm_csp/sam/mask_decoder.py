"""SAM's mask decoder, batched over queries of different images."""

import torch
from torch import Tensor

from vllm_csp.sam.geometry import SamGeometry
from vllm_csp.sam.upstream import MaskDecoder as UpstreamMaskDecoder
from vllm_csp.sam.upstream import TwoWayTransformer

# Fixed by SAM's `build_sam.py` for every encoder size; no tensor shape shows the number of heads.
DECODER_DEPTH = 2
DECODER_HEADS = 8
DECODER_MLP_DIM = 2048
MULTIMASK_OUTPUTS = 3
IOU_HEAD_DEPTH = 3
IOU_HEAD_HIDDEN_DIM = 256


class MaskDecoder(UpstreamMaskDecoder):
    """Prompts and image embeddings to low-resolution mask logits.

    Upstream repeats one image for all prompts, so a caller must loop over images. Rows of the
    decoder do not see each other: here every row brings its own image; results
    are the same up to the rounding of another batch size.
    Only the mask token LISA reads (`multimask_output=False`: token 0) is turned into a mask.
    Upstream: segment-anything `modeling/mask_decoder.py`.
    """

    def __init__(self, geometry: SamGeometry) -> None:
        width = geometry.out_channels
        super().__init__(
            transformer_dim=width,
            transformer=TwoWayTransformer(
                depth=DECODER_DEPTH,
                embedding_dim=width,
                num_heads=DECODER_HEADS,
                mlp_dim=DECODER_MLP_DIM,
            ),
            num_multimask_outputs=MULTIMASK_OUTPUTS,
            iou_head_depth=IOU_HEAD_DEPTH,
            iou_head_hidden_dim=IOU_HEAD_HIDDEN_DIM,
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompts: Tensor,
        dense_prompts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode one mask per row.

        `image_embeddings`: [Q, C, h, w], the embedding of each row's image. `image_pe`:
        [1, C, h, w]. `sparse_prompts`: [Q, N, C]. `dense_prompts`: broadcasts to [Q, C, h, w].
        One dtype for all.
        Returns: logits [Q, 4h, 4w] and predicted IoU [Q], same dtype.
        """
        rows, channels, height, width = image_embeddings.shape
        output_tokens = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((output_tokens.expand(rows, -1, -1), sparse_prompts), dim=1)
        hidden, pixels = self.transformer(image_embeddings + dense_prompts, image_pe, tokens)

        grid = pixels.transpose(1, 2).view(rows, channels, height, width)
        upscaled: Tensor = self.output_upscaling(grid)
        mask_query: Tensor = self.output_hypernetworks_mlps[0](hidden[:, 1])
        logits = torch.bmm(mask_query.unsqueeze(1), upscaled.flatten(2))
        predicted_iou: Tensor = self.iou_prediction_head(hidden[:, 0])
        return logits.view(rows, 4 * height, 4 * width), predicted_iou[:, 0]
