"""What can be made of an answer's masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vllm_csp.images import decode_image
from vllm_csp.serving.picture import ImageLike, image_file
from vllm_csp.serving.segment.formats import coco, detections, fiftyone, label_studio

if TYPE_CHECKING:
    import fiftyone as fiftyone_package
    import supervision

    from vllm_csp.serving.segment.formats.labelled import LabelledMask


class Convertible:
    """Methods of answers with masks."""

    def labelled_masks(self) -> list[LabelledMask]:
        """Each mask with its question."""
        raise NotImplementedError

    def image_size(self) -> tuple[int, int]:
        """Height and width of the image; (0, 0) where an answer without masks does not tell."""
        masks = self.labelled_masks()
        return masks[0][1].size if masks else (0, 0)

    def to_numpy(self) -> npt.NDArray[np.bool_]:
        """All masks, bool [n, height, width]."""
        masks = [mask.to_numpy() for _, mask in self.labelled_masks()]
        return np.stack(masks) if masks else np.zeros((0, *self.image_size()), dtype=bool)

    def overlay(self, image: ImageLike) -> Image.Image:
        """The image with all masks drawn over it; give what was asked about, not an address.

        Raises `ValueError` for an image of another size.
        """
        from vllm_csp.serving.overlay import draw_overlay

        photo = decode_image(image_file(image))
        if self.labelled_masks() and (photo.height, photo.width) != self.image_size():
            height, width = self.image_size()
            raise ValueError(
                f"the masks are of an image of {width} x {height} pixels, this one has "
                f"{photo.width} x {photo.height}"
            )
        return draw_overlay(photo, [mask.model_dump() for _, mask in self.labelled_masks()])

    def to_coco(
        self, image_id: int, category_ids: Mapping[str, int] | None = None, first_id: int = 1
    ) -> list[dict[str, Any]]:
        """COCO annotations; see `formats.coco.to_coco`."""
        return coco.to_coco(self.labelled_masks(), image_id, category_ids, first_id)

    def to_supervision(self, class_ids: Mapping[str, int] | None = None) -> supervision.Detections:
        """Detections for supervision; see `formats.detections.to_supervision`."""
        return detections.to_supervision(self.labelled_masks(), class_ids)

    def to_label_studio(
        self,
        from_name: str = "tag",
        to_name: str = "image",
        labels: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Brush annotations; see `formats.label_studio.to_label_studio`."""
        return label_studio.to_label_studio(self.labelled_masks(), from_name, to_name, labels)

    def to_fiftyone(self, labels: Mapping[str, str] | None = None) -> fiftyone_package.Detections:
        """Detections for FiftyOne; see `formats.fiftyone.to_fiftyone`."""
        return fiftyone.to_fiftyone(self.labelled_masks(), labels)
