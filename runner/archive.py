"""Zip archive of the supervisor (zipapp), run by `python ARCHIVE`.

The same sources make the same bytes: names in order, no times, no compression (zlib's output differs by version). The
file is named by the hash of these bytes and the version of the interpreter, for which it has the modules compiled as
well, and never overwritten: a new version of the service does not change the archive from which running supervisors
were started.
"""

from __future__ import annotations

import io
import marshal
import os
import zipfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

ROOM = Path(__file__).parent
MODULES = ("__init__.py", "processes.py", "removal.py", "supervisor/*.py", "supervisor/*/*.py")
ENTRY = b"import sys\n\nfrom runner.supervisor.__main__ import main\n\nsys.exit(main())\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # a zip archive has no earlier time
UNCHECKED = (1).to_bytes(4, "little")  # PEP 552: of these sources by their hash, which is not compared with them


def sources() -> dict[str, bytes]:
    """Files of the archive, by their name in the archive."""
    modules = {
        f"runner/{path.relative_to(ROOM).as_posix()}": path.read_bytes()
        for pattern in MODULES
        for path in ROOM.glob(pattern)
    }
    return {"__main__.py": ENTRY, **modules}


def with_compiled(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Add the modules as this interpreter compiles them: one of the same version then starts in half of the time.

    Any other version compiles the sources at each start. The bytes are not always the same.
    """
    compiled = {
        f"{name}c": MAGIC_NUMBER + UNCHECKED + source_hash(source) + _code(name, source)
        for name, source in contents.items()
    }
    return {**contents, **compiled}


def build(contents: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Build the archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o644 << 16
            entry.compress_type = compression
            archive.writestr(entry, contents[name])
    return buffer.getvalue()


@cache  # a quarter of a second for all of them, and every engine of a process needs the same ones
def _code(name: str, source: bytes) -> bytes:
    return marshal.dumps(compile(source, name, "exec", dont_inherit=True))


def digest(contents: Mapping[str, bytes]) -> str:
    """SHA-256 of the archive of these files, and of the version of the interpreter's code."""
    return sha256(build(contents) + MAGIC_NUMBER).hexdigest()


def install(directory: Path, contents: Mapping[str, bytes] | None = None) -> Path:
    """Write the archive into a directory unless it exists there; return its path. Raises OSError.

    Its modules are in it compiled as well.
    """
    contents = sources() if contents is None else contents
    path = directory / f"{digest(contents)}.pyz"
    if not path.exists():
        archive = build(with_compiled(contents))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(temporary, "wb") as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())  # a name that stands for content must not outlive it in a crash
        temporary.replace(path)
    return path
