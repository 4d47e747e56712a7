"""Rate limits per minute and key (GCRA: a token bucket as one number); a whole minute's worth may come at once.

Kept in this process, for a limited number of keys; the least recently used key is dropped first. N processes allow N
times as much: these limits keep one process usable. The libraries for it drop keys by age only, and here clients choose
the keys.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

WINDOW_SECONDS = 60.0
MOST_KEYS = 10_000
IPV6_PREFIX_BITS = 64  # what one client has to itself
ROUNDING_SECONDS = 1e-6  # thousands of periods added up miss the minute by less


class RateLimit:
    """One limit, counted for each key."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._period = WINDOW_SECONDS / per_minute
        self._clock = clock
        self._full_again_at: OrderedDict[Hashable, float] = OrderedDict()  # when nothing will be spent any more

    def wait_seconds(self, key: Hashable, count: int = 1) -> float:
        """The seconds until so many more are allowed, which may be as many as there are in a minute; 0: now."""
        now = self._clock()
        wait = max(self._full_again_at.get(key, now), now) + count * self._period - now - WINDOW_SECONDS
        return wait if wait > ROUNDING_SECONDS else 0.0

    def spend(self, key: Hashable, count: int = 1) -> None:
        """Count them, whether they are allowed or not: but never further than to a whole minute's wait."""
        now = self._clock()
        full = max(self._full_again_at.get(key, now), now) + count * self._period
        self._full_again_at[key] = min(full, now + 2 * WINDOW_SECONDS)
        self._full_again_at.move_to_end(key)
        if len(self._full_again_at) > MOST_KEYS:
            self._full_again_at.popitem(last=False)

    def take(self, key: Hashable, count: int = 1) -> float:
        """Count requests and return 0, or return the seconds to wait if they exceed the limit."""
        wait = self.wait_seconds(key, count)
        if not wait:
            self.spend(key, count)
        return wait


def client_of(address: str) -> str:
    """The key of a client in a limit: its IPv4 address, or its IPv6 network, since one client has a whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX_BITS), strict=False))
