"""What vLLM loads images with on a LISA server."""

from __future__ import annotations

import os
from typing import Any

from PIL import Image
from vllm import envs
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.multimodal.media import MediaConnector

from vllm_csp.media.connection import PublicConnection
from vllm_csp.media.image_io import LisaImageIO
from vllm_csp.plugin import MEDIA_CONNECTOR


class PublicMediaConnector(MediaConnector):
    """vLLM's connector on a connection that only reaches public addresses.

    Its own refusals (local files, unknown schemes, data that is no base64) become 400s.
    """

    def __init__(
        self,
        media_io_kwargs: dict[str, dict[str, Any]] | None = None,
        *,
        allowed_media_domains: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._public = PublicConnection(allowed_media_domains or ())
        super().__init__(
            media_io_kwargs, self._public, allowed_media_domains=allowed_media_domains, **kwargs
        )

    def fetch_image(self, image_url: str, *, image_mode: str | None = None) -> Image.Image:
        """The image behind an address, as `LisaImageIO` reads it."""
        try:
            return self.load_from_url(
                image_url, LisaImageIO(), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
            )
        finally:
            self._public.let_go()

    async def fetch_image_async(
        self, image_url: str, *, image_mode: str | None = None
    ) -> Image.Image:
        """The same without blocking."""
        try:
            return await self.load_from_url_async(
                image_url, LisaImageIO(), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
            )
        finally:
            self._public.let_go()

    async def load_from_url_async(self, url: str, *args: Any, **kwargs: Any) -> Any:
        """As in vLLM; raises `VLLMClientError` kinds (4xx) for everything a client can send."""
        try:
            return await super().load_from_url_async(url, *args, **kwargs)
        except VLLMClientError:
            raise
        except (ValueError, NotImplementedError, RuntimeError) as error:
            raise VLLMValidationError(str(error), parameter="image_url") from error


def choose_connector() -> None:
    """Make this the server's connector, unless the operator chose another."""
    os.environ.setdefault("VLLM_MEDIA_CONNECTOR", MEDIA_CONNECTOR)
