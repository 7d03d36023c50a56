"""Which network addresses a client may make the server fetch from."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")


class PrivateAddressError(OSError):
    """A host that is not on the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could reach.

    Loopback, private, link-local, shared, reserved and multicast addresses are not, nor are they
    when written as IPv6 (mapped, 6to4, NAT64). Raises `ValueError` for what is no IP address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped
        if parsed in _SIX_TO_FOUR:
            inner = parsed.sixtofour
        elif parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            parsed = inner
    return parsed.is_global and not parsed.is_multicast


def require_public(address: str) -> None:
    """Raise `PrivateAddressError` unless the address is public."""
    if not is_public(address):
        raise PrivateAddressError(f"{address} is no address on the public internet")


class PublicResolver(AbstractResolver):
    """Resolves names, refusing those of which any address is not public.

    aiohttp connects to the addresses that are returned here, so a name cannot mean another host
    between check and connection.
    """

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a host. Raises `PrivateAddressError`, or `OSError` for unknown names."""
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            require_public(one["host"])
        return found

    async def close(self) -> None:
        """Release the resolver underneath."""
        await self._resolver.close()
