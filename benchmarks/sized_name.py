"""Names such as `dense@512`: a kind of what is measured, and pixels of SAM's images."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Collection

from vllm_csp.config import CspConfig
from vllm_csp.images import SAM_IMAGE_SIZE


def kind_and_size(text: str, kinds: Collection[str]) -> tuple[str, int]:
    """The kind, one of `kinds`, and the size, 1024 if there is none.

    Raises: ArgumentTypeError for a name that is none, and for a size that no server takes.
    """
    kind, at, size = text.partition("@")
    if kind not in kinds or (at and not size.isdecimal()):
        known = ", ".join(kinds)
        raise ArgumentTypeError(f"{text} is none of {known}, nor one of them with @512")
    section = {"sam_image_size": int(size or SAM_IMAGE_SIZE)}
    try:
        return kind, CspConfig.from_section(section, text).sam_image_size
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
