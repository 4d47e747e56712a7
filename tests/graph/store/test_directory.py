"""Store in a directory: pieces that are written past the page cache where that is possible, and as a whole."""

from __future__ import annotations

import fcntl
import mmap
import os
from hashlib import sha256
from pathlib import Path

import pytest

from graph.store import directory
from graph.store.base import BadPiece
from graph.store.directory import BLOCK_BYTES, Directory


def filled(size: int) -> memoryview:
    """Memory that begins with a page, as that of collected bodies."""
    content = memoryview(mmap.mmap(-1, max(size, 1)))[:size]
    content[:] = os.urandom(size)
    return content


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("size", [1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5])
async def test_a_piece_is_written_past_the_page_cache_but_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, refuses: bool
) -> None:
    """refuses: the file system does."""
    past: list[int] = []
    control, write = fcntl.fcntl, os.write

    def controlled(descriptor: int, command: int, flags: int = 0) -> int:
        if refuses and flags & os.O_DIRECT:
            raise OSError
        return control(descriptor, command, flags)

    def written(descriptor: int, content: memoryview) -> int:
        if control(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            past.append(len(content))
        return write(descriptor, content)

    monkeypatch.setattr(fcntl, "fcntl", controlled)
    monkeypatch.setattr(os, "write", written)
    store, content = Directory(tmp_path), filled(size)
    await store.put(1, sha256(content).hexdigest(), content)
    assert (tmp_path / "0" / "1").read_bytes() == content
    assert (tmp_path / "0" / "1").stat().st_mode & 0o777 == 0o600
    whole = size - size % BLOCK_BYTES
    assert past == ([whole] if whole and not refuses else [])


async def test_a_piece_in_memory_that_is_not_aligned_is_written_too(tmp_path: Path) -> None:
    content = filled(2 * BLOCK_BYTES)[1:]
    store = Directory(tmp_path)
    await store.put(1, sha256(content).hexdigest(), content)
    assert (tmp_path / "0" / "1").read_bytes() == content


async def test_other_bytes_than_those_of_the_digest_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_write", None)
    with pytest.raises(BadPiece):
        await Directory(tmp_path).put(1, sha256(b"a").hexdigest(), b"b")
    assert not list(tmp_path.iterdir())
