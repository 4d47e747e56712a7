"""The store protocol.

An object is written once and as a whole: it appears with all of its bytes, or not. Supervisors put and get objects
through the API, or directly, where the store says how (`offer_put`, `offer_get`): {"path": ...} on a mount that their
machines have, {"url": ..., "headers": ...} for a request. What they put directly is looked up (`sizes`) before it
counts as stored, and may come late: an object whose row has gone meanwhile is found by `ids`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

MARKER = "installation"  # name of the object or file that says whose a store is


class BadPiece(Exception):
    """The bytes that were sent are not those of the digest; the message is a sentence."""


class StoreUnavailable(Exception):
    """The store can't be used now; the message is for the operator."""


class Store(Protocol):
    """A place for objects. Every method raises StoreUnavailable."""

    is_direct: bool  # supervisors write objects themselves

    def offer_put(self, piece_id: int, digest: str, size_bytes: int) -> Mapping[str, object]:
        """How a supervisor puts a piece; empty: through the API."""

    def offer_get(self, piece_id: int) -> Mapping[str, object]:
        """How a supervisor gets a piece; empty: through the API."""

    def authorities(self) -> str:
        """Certificates (PEM) that supervisors verify the store's URLs with; "": those of their system."""

    async def claim(self, installation: str) -> None:
        """Mark the store as this installation's own: ids of two would name the same objects. Idempotent.

        Raises StoreUnavailable if it is another one's.
        """

    async def free_bytes(self) -> int | None:
        """How many bytes it can take without harm to others; None: as many as one likes."""

    async def put(self, piece_id: int, digest: str, content: bytes | memoryview) -> None:
        """Write a piece; a repetition changes nothing. Raises BadPiece."""

    def read(self, piece_id: int, begin: int, end: int) -> AsyncIterator[bytes]:
        """Read a part of a piece. Raises FileNotFoundError if it is not there."""

    async def sizes(self, piece_ids: Collection[int]) -> Mapping[int, int]:
        """Return the sizes of those of these objects that are there."""

    def ids(self) -> AsyncIterator[Collection[int]]:
        """Return the ids of all objects, in groups."""

    async def remove(self, piece_ids: Collection[int]) -> None:
        """Remove pieces. Idempotent."""

    async def tidy(self) -> None:
        """Remove what writes that were cut off have left."""


def require_own(owner: str, installation: str, marker: str) -> None:
    """Check what a marker says. Raises StoreUnavailable."""
    if owner.strip() != installation:
        raise StoreUnavailable(
            f"the store is used by another installation, or by this one before its database was restored elsewhere; in "
            f"the latter case, delete {marker}"
        )
