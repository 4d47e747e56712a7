"""A PostgreSQL of its own for a benchmark, migrated, durable as in production (fsync on)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from db.connection import connect_raw
from db.embedded.server import serve
from db.schema import upgrade


@contextmanager
def fresh_database() -> Iterator[str]:
    """Its URL; all of it is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="simulations-bench-", dir="/tmp"))
    directory.chmod(0o711)
    try:
        with serve(directory) as database:
            asyncio.run(upgrade(database.url))
            yield database.url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def another_database(url: str, name: str = "another", *, migrated: bool = True) -> str:
    """Create a second one on the same server, and return its URL."""
    connection = await connect_raw(url, application="benchmark")
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    made = urlsplit(url)._replace(path=f"/{name}").geturl()
    if migrated:
        await upgrade(made)
    return made
