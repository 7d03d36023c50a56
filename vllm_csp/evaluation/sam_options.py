"""What the rows of a comparison may set of their engine's SAM."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Self

from vllm_csp.config import CspConfig, SamQuantization
from vllm_csp.images import SAM_IMAGE_SIZE


@dataclass(frozen=True)
class SamOptions:
    """Settings of a server, under their names there (`CspConfig`) and with its defaults."""

    sam_image_size: int = SAM_IMAGE_SIZE
    sam_quantization: SamQuantization = "none"

    @classmethod
    def take(cls, values: MutableMapping[str, Any], name: str) -> Self:
        """Take these settings out of the values of `name`, those that are there.

        Raises: ValueError for values that no server takes.
        """
        names = [one.name for one in fields(cls)]
        given = {one: values.pop(one) for one in names if one in values}
        settings = CspConfig.from_section(given, name)
        return cls(**{one: getattr(settings, one) for one in names})
