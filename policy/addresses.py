"""Network addresses that a request on behalf of a user may go to: public ones, and networks that a setting allows.

An address that carries another one (IPv4-mapped, 6to4, Teredo, NAT64) is judged by both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_UNICAST = ip_network(
    "2000::/3"
)  # what is assigned of IPv6; outside are site-local, SIIT, IPv4-compatible, local NAT64
# Of the registries of special addresses (IANA), what older versions of Python take for global.
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))


def refusal(address: str, allowed: Sequence[Network] = ()) -> str | None:
    """Return why this address may not be connected to, as a sentence; None if it may.

    address: a literal, not a name. allowed: networks that may be connected to although they are not public.
    """
    try:
        found = ip_address(address.partition("%")[0])  # without the zone of a link-local one
    except ValueError:
        return f"{address[:100]!r} is not an IP address."
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    if any((mapped or found) in network for network in allowed):
        return None
    if all(map(_is_public, (found, *_carried(found)))):
        return None
    return f"{found} is not a public address."


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or any(address in network for network in _SPECIAL):
        return False
    if isinstance(address, IPv4Address):
        return True
    return address in _UNICAST or address in _NAT64 or address.ipv4_mapped is not None


def _carried(address: Address) -> Iterator[Address]:
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
