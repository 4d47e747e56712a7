"""One launch of an engine, which takes several at once."""

from __future__ import annotations

from runner.base import Engine, Launch


async def start(engine: Engine, launch: Launch) -> None:
    """Launch one member; raise why it was not started."""
    [failure] = await engine.launch([launch])
    if failure is not None:
        raise failure
