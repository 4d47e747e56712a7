"""Identity of this installation, by which several of them share a cluster without touching each other's jobs.

It is that of the database: of the PostgreSQL cluster (initdb draws it) and the database in it. A dump that is restored
elsewhere is another installation, so a copy for trials does not end the jobs of the original.
"""

from __future__ import annotations

from hashlib import sha256

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

CHARACTERS = 10  # of hexadecimal: short enough for names

_IDENTITY = text(
    "SELECT (SELECT system_identifier FROM pg_control_system())::text,"
    " (SELECT oid FROM pg_database WHERE datname = current_database())::text"
)


async def identify(session: AsyncSession) -> str:
    """Return the identity: `CHARACTERS` hexadecimal digits."""
    row = (await session.execute(_IDENTITY)).one()
    return sha256("/".join(row).encode()).hexdigest()[:CHARACTERS]
