"""Downloads that stay on the public internet and below a size."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import Collection

import aiohttp
from vllm import envs
from vllm.connections import HTTPConnection
from vllm.exceptions import VLLMUnprocessableEntityError, VLLMValidationError
from yarl import URL

from vllm_csp.media.addresses import PrivateAddressError, PublicResolver, require_public
from vllm_csp.media.memory import ImageMemory

MAX_BYTES = 20 << 20
"""Largest image that is fetched, unless VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB says otherwise."""

MAX_HOPS = 5

# What the system's resolver would read as an IPv4 address in one of its old forms.
_NUMBER = re.compile(r"(^|\.)(0[xX][0-9a-fA-F]*|\d+)\.?$")
_CHUNK = 64 << 10


class PublicConnection(HTTPConnection):
    """vLLM's downloads, with every hop's address checked after it was resolved.

    trusted: hosts that the operator named with --allowed-media-domains; these may be private, and
    when there are any, no others are fetched from, by redirects neither.
    Proxies of the environment are not used: the address could not be checked behind one.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        super().__init__()
        self._trusted = frozenset(host.lower() for host in trusted)
        self._memory = ImageMemory.instance()
        self._held = 0

    def let_go(self) -> None:
        """What was fetched is no longer held by anybody."""
        self._memory.give_back(self._held)
        self._held = 0

    def get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        max_bytes: int | None = None,
    ) -> bytes:
        """Like `async_get_bytes`, for callers without an event loop."""
        fetching = self.async_get_bytes(
            url, timeout=timeout, allow_redirects=allow_redirects, max_bytes=max_bytes
        )
        return asyncio.run(fetching)

    async def async_get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        max_bytes: int | None = None,
    ) -> bytes:
        """The body behind an http(s) address.

        timeout in seconds. Redirects are followed only where VLLM_MEDIA_URL_ALLOW_REDIRECTS is set,
        each one checked like the first address. Its bytes count as held until `let_go`.
        Raises `VLLMValidationError` (400) for an address that may not be fetched,
        `VLLMUnprocessableEntityError` (422) for one that cannot, and `ImagesFullError` (503).
        """
        hops = MAX_HOPS if allow_redirects and _redirects_wanted() else 0
        limit = min(size_limit(), max_bytes or size_limit())
        try:
            async with asyncio.timeout(timeout):
                return await self._follow(self._checked(url), hops, limit)
        except PrivateAddressError as error:
            raise _refusal(url, str(error)) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddressError):
                raise _refusal(url, str(error.os_error)) from error
            raise _failure("its server cannot be reached") from error
        except TimeoutError as error:
            raise _failure(f"no answer within {timeout} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(type(error).__name__) from error

    async def _follow(self, url: URL, hops: int, limit: int) -> bytes:
        while True:
            async with (
                self._session(url) as session,
                session.get(url, headers=self._headers(), allow_redirects=False) as response,
            ):
                if not 300 <= response.status < 400:
                    if response.status >= 400:
                        raise _failure(f"its server answered {response.status}")
                    return await self._read(response, limit)
                if hops == 0:
                    raise _refusal(str(url), "it redirects, and redirects are not followed")
                hops -= 1
                target = url.join(URL(response.headers.get("Location", "")))
            url = self._checked(str(target))

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            self._memory.take(len(chunk))
            self._held += len(chunk)
            body += chunk
            if len(body) > limit:
                raise _failure(f"it is larger than {limit} bytes")
        return bytes(body)

    def _session(self, url: URL) -> aiohttp.ClientSession:
        trusted = url.host in self._trusted
        connector = aiohttp.TCPConnector(resolver=None if trusted else PublicResolver())
        return aiohttp.ClientSession(connector=connector, trust_env=False)

    def _checked(self, url: str) -> URL:
        """The address, if its form can be trusted to name the host that is connected to."""
        if "\\" in url or any(ord(character) <= 0x20 for character in url):
            raise _refusal(url, "it has a backslash, a space or a control character")
        try:
            parsed = URL(url)
            host, _ = parsed.host, parsed.port
        except ValueError as error:
            raise _refusal(url, "it is malformed") from error
        if parsed.scheme not in ("http", "https") or not host:
            raise _refusal(url, "it is no http or https address")
        if parsed.user is not None or parsed.password is not None:
            raise _refusal(url, "it has a user name or password")
        if host in self._trusted:
            return parsed
        if self._trusted:
            raise _refusal(url, "its host is none of --allowed-media-domains")
        if _is_literal(host):
            # aiohttp does not resolve these.
            require_public(host)
        elif _NUMBER.search(host):
            raise _refusal(url, "its host is a number; write an IPv4 address as four")
        return parsed


def size_limit() -> int:
    """Largest download in bytes."""
    if "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB" in os.environ:
        megabytes: int = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
        return megabytes << 20 if megabytes > 0 else 1 << 62
    return MAX_BYTES


def _redirects_wanted() -> bool:
    # vLLM follows them unless told otherwise; here it is the other way round.
    return os.environ.get("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0") not in ("0", "")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _refusal(url: str, reason: str) -> VLLMValidationError:
    return VLLMValidationError(
        f"the image's address is not fetched: {reason}", parameter="image_url", value=url[:200]
    )


def _failure(reason: str) -> VLLMUnprocessableEntityError:
    return VLLMUnprocessableEntityError(
        f"the image could not be fetched: {reason}", parameter="image_url"
    )
