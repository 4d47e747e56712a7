"""Store in a directory: of the service, or a mount that every machine has at the same path.

    ROOT/installation                      whose it is
    ROOT/<id // 1000>/<id>                 a piece
    ROOT/<id // 1000>/<id>.<random>.part   one that is being written; left by a process that was killed

A piece is written past the page cache where that is possible, and renamed into its place once it is on the disk.
`RESERVED_BYTES` of the disk stay free: it may be that of the database, too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from graph.store.base import MARKER, BadPiece, StoreUnavailable, require_own

READ_BYTES = 1 << 20
BLOCK_BYTES = 4096  # what is written past the page cache is a multiple of it, in its size and its place
RESERVED_BYTES = 1 << 30
PART_SECONDS = 86_400.0  # no write takes as long


class Directory:
    """The store. is_shared: supervisors read and write it themselves."""

    def __init__(self, root: Path, *, is_shared: bool = False) -> None:
        self._root = root
        self.is_direct = is_shared

    def offer_put(self, piece_id: int, digest: str, size_bytes: int) -> Mapping[str, object]:
        """A path on a shared mount."""
        return {"path": str(self._path(piece_id))} if self.is_direct else {}

    def offer_get(self, piece_id: int) -> Mapping[str, object]:
        """The same."""
        return {"path": str(self._path(piece_id))} if self.is_direct else {}

    def authorities(self) -> str:
        """None: there are no URLs."""
        return ""

    async def claim(self, installation: str) -> None:
        """Write whose it is, or compare."""
        await asyncio.to_thread(self._claim, installation)

    async def free_bytes(self) -> int | None:
        """What the disk has left, without the reserve."""
        return await asyncio.to_thread(self._free_bytes)

    async def put(self, piece_id: int, digest: str, content: bytes | memoryview) -> None:
        """Write a piece."""
        await asyncio.to_thread(self._put, piece_id, digest, content)

    async def read(self, piece_id: int, begin: int, end: int) -> AsyncIterator[bytes]:
        """Read a part of a piece, 1 MiB at a time."""
        try:
            descriptor = await asyncio.to_thread(os.open, self._path(piece_id), os.O_RDONLY)
            try:
                while begin < end:
                    chunk = await asyncio.to_thread(os.pread, descriptor, min(READ_BYTES, end - begin), begin)
                    if not chunk:
                        raise FileNotFoundError(f"piece {piece_id} is shorter than it was")
                    begin += len(chunk)
                    yield chunk
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(str(error)) from error

    async def sizes(self, piece_ids: Collection[int]) -> Mapping[int, int]:
        """Look at the files."""
        return await asyncio.to_thread(self._sizes, piece_ids)

    async def ids(self) -> AsyncIterator[Collection[int]]:
        """List one directory after the other."""
        for name in await asyncio.to_thread(self._names, self._root):
            if name.isdecimal():
                found = await asyncio.to_thread(self._names, self._root / name)
                yield [int(each) for each in found if each.isdecimal()]

    async def remove(self, piece_ids: Collection[int]) -> None:
        """Remove pieces."""
        await asyncio.to_thread(self._remove, piece_ids)

    async def tidy(self) -> None:
        """Remove parts that are older than any write."""
        await asyncio.to_thread(self._tidy)

    def _claim(self, installation: str) -> None:
        marker = self._root / MARKER
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError), open(marker, "x") as file:
                file.write(installation)
            owner = marker.read_text(errors="replace")
            if not owner:  # the process that made it has not written yet, or was killed before
                marker.write_text(installation)
        except OSError as error:
            raise StoreUnavailable(str(error)) from error
        require_own(owner or installation, installation, str(marker))

    def _sizes(self, piece_ids: Collection[int]) -> Mapping[int, int]:
        """List directories instead of asking for names: NFS remembers for half a minute that a name was not there."""
        wanted = {self._path(each): each for each in piece_ids}
        found: dict[int, int] = {}
        for directory in {path.parent for path in wanted}:
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if (each := wanted.get(directory / entry.name)) is not None:
                            found[each] = entry.stat().st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreUnavailable(str(error)) from error
        return found

    def _names(self, directory: Path) -> Sequence[str]:
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreUnavailable(str(error)) from error

    def _free_bytes(self) -> int:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return max(shutil.disk_usage(self._root).free - RESERVED_BYTES, 0)
        except OSError as error:
            raise StoreUnavailable(str(error)) from error

    def _put(self, piece_id: int, digest: str, content: bytes | memoryview) -> None:
        if sha256(content).hexdigest() != digest:
            raise BadPiece("The bytes are not those of the digest: send them again.")
        path = self._path(piece_id)
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "xb", buffering=0, opener=_private) as file:
                _write(file.fileno(), memoryview(content))
                os.fsync(file.fileno())  # its row will say that it is there
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise StoreUnavailable(str(error)) from error

    def _remove(self, piece_ids: Collection[int]) -> None:
        for each in piece_ids:
            try:
                self._path(each).unlink(missing_ok=True)
            except OSError as error:
                raise StoreUnavailable(str(error)) from error

    def _tidy(self) -> None:
        before = time.time() - PART_SECONDS
        for part in self._root.glob("*/*.part"):
            with suppress(OSError):
                if part.stat().st_mtime < before:
                    part.unlink()

    def _path(self, piece_id: int) -> Path:
        return self._root / str(piece_id // 1000) / str(piece_id)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(descriptor: int, content: memoryview) -> None:
    """Write a file past the page cache, as far as memory and file system allow it.

    It is synced at once and seldom read, and its pages would take the place of the database's.
    """
    written, flags = 0, fcntl.fcntl(descriptor, fcntl.F_GETFL)
    whole = len(content) - len(content) % BLOCK_BYTES
    with suppress(OSError):  # not on this file system, or not from memory that is not aligned
        if whole:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            written = os.write(descriptor, content[:whole])
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    while written < len(content):
        written += os.write(descriptor, content[written:])
