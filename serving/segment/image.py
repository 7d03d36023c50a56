"""The image of a call: fetched once, by vLLM's own media connector."""

from __future__ import annotations

import asyncio
import binascii
import re

import aiohttp
from PIL import Image
from vllm import envs
from vllm.config import ModelConfig
from vllm.exceptions import VLLMClientError, VLLMUnprocessableEntityError, VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

from vllm_csp.images import NamedImage
from vllm_csp.models.processor import decoded_image

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def image_url(image: str) -> str:
    """What the connector takes: addresses as they are, anything else as the base64 of a file."""
    image = image.strip()
    return image if _SCHEME.match(image) else f"data:image/*;base64,{image}"


async def fetch_image(image: str, model_config: ModelConfig) -> NamedImage:
    """The image behind a data URL, an address or base64.

    The connector is the one of chat completions, with the server's limits and settings.
    Raises `VLLMValidationError` (400) for what is no image that can be used, and
    `VLLMUnprocessableEntityError` (422) for what cannot be fetched.
    """
    connector = MEDIA_CONNECTOR_REGISTRY.load(
        envs.VLLM_MEDIA_CONNECTOR,
        media_io_kwargs=model_config.get_multimodal_config().media_io_kwargs,
        allowed_local_media_path=model_config.allowed_local_media_path,
        allowed_media_domains=model_config.allowed_media_domains,
    )
    try:
        media = await connector.fetch_image_async(image_url(image))
        return await asyncio.to_thread(lambda: NamedImage.of(decoded_image(media)))
    except VLLMClientError:
        raise
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise VLLMUnprocessableEntityError(
            f"the image could not be fetched: {error or type(error).__name__}", parameter="image"
        ) from error
    except Image.DecompressionBombError as error:
        raise VLLMValidationError(
            f"the image has too many pixels: {error}", parameter="image"
        ) from error
    except binascii.Error as error:
        raise VLLMValidationError(
            f"the image is no valid base64 ({error}); give a data URL, an http(s) address or the "
            "base64 of a file",
            parameter="image",
        ) from error
    except (ValueError, NotImplementedError, RuntimeError) as error:
        # The connector's own refusals: no image, other schemes, local files, domains not allowed.
        raise VLLMValidationError(str(error), parameter="image") from error
