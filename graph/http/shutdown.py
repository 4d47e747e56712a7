"""Shutdown: ends open streams before the process ends, so that they don't keep it alive.

The server begins it as soon as it handles SIGTERM or SIGINT, before it waits for open connections. The end of the
lifespan would be too late: it comes only after they have closed. uvicorn closes WebSockets itself, with 1012; a stream
over HTTP ends when `wait` returns, and its client resumes at another process, or here again. A shutdown is begun once
and never taken back. It may be announced before: then `/readyz` fails, and proxies send no new client here, while
everything is served as before.
"""

from __future__ import annotations

import asyncio


class Shutdown:
    """Begun by the server, awaited by streams. To be used in the event loop's thread only."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._announced = False

    @property
    def announced(self) -> bool:
        """True if proxies should send new requests elsewhere."""
        return self._announced

    def announce(self) -> None:
        """Say from now on that the process is about to end."""
        self._announced = True

    @property
    def begun(self) -> bool:
        """True if the shutdown has begun."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Wake everybody who waits; again changes nothing."""
        self._begun.set()

    async def wait(self) -> None:
        """Return when the process is about to end; at once if it is already."""
        await self._begun.wait()
