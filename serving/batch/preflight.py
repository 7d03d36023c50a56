"""What is found out about servers before the first row."""

from __future__ import annotations

import httpx

from vllm_csp.serving.batch.endpoint import PROBE_SECONDS
from vllm_csp.serving.batch.fleet import Fleet
from vllm_csp.serving.batch.sources.source import UsageError


async def check_servers(fleet: Fleet, client: httpx.AsyncClient) -> list[str]:
    """Set servers that do not answer aside, and return their URLs.

    Raises `UsageError` when one refuses the key: every row would fail.
    """
    absent = []
    for endpoint in fleet.endpoints:
        try:
            reply = await client.get(f"{endpoint.url}/v1/models", timeout=PROBE_SECONDS)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"{endpoint.url} is no URL such as http://host:8000") from error
        except httpx.TransportError:
            fleet.set_aside(endpoint)
            absent.append(endpoint.url)
            continue
        if reply.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UsageError(f"{endpoint.url} refuses the key: give --api-key or VLLM_API_KEY")
    return absent
