"""One launch of an engine, which takes several at once, and the end of one member."""

from __future__ import annotations

from live import eventually

from runner.base import Engine, Launch, Liveness


async def start(engine: Engine, launch: Launch) -> None:
    """Launch one member; raise why it was not started."""
    [failure] = await engine.launch([launch])
    if failure is not None:
        raise failure


async def dead(engine: Engine, member_id: str) -> None:
    """Wait until nothing of a member is left."""

    async def is_dead() -> bool:
        return await engine.probe(member_id) is Liveness.DEAD

    await eventually(is_dead, f"nothing of {member_id} is left")
