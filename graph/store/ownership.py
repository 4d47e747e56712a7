"""Ownership of a store: one that supervisors write to themselves belongs to one installation.

Objects are named by the ids of their rows, so two installations would write over each other's, and the collector of one
would remove the other's.
"""

from __future__ import annotations

from db.connection import Sessions
from db.installation import identify
from graph.store.base import Store


class Ownership:
    """The ownership, as one process has checked it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_checked = not store.is_direct  # a directory of the service's own needs none

    async def require(self, sessions: Sessions) -> None:
        """Claim the store, once. Raises StoreUnavailable."""
        if not self._is_checked:
            async with sessions() as session:
                installation = await identify(session)
            await self._store.claim(installation)
            self._is_checked = True
