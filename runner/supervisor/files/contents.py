"""Files of a directory as the store keeps them: regular files, and links that lead to another one of them.

Names come from the simulation: what could not be written elsewhere, or would deceive a reader of a list, is left out
and counted, as is what this user may not read. What is open for writing, or has changed between two looks, is not
complete. A directory that can't be listed is not an empty one: the list that is stored must not be replaced by it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: see `runner.supervisor.launcher`
    import hashlib

MOST_FILES = 10_000
MOST_ENTRIES = 10 * MOST_FILES  # with directories and what is left out: a look has to end
MOST_PATH_BYTES = 1_000
MOST_NAME_BYTES = 255  # of Linux
MOST_LEVELS = 50
UNREADABLE = "it can't be read"


def sha256(content: bytes | memoryview = b"") -> hashlib._Hash:
    """Begin a SHA-256, as `hashlib` does, which is imported with the first one."""
    import hashlib

    return hashlib.sha256(content)


@dataclass(frozen=True)
class Seen:
    """What tells a file from its next version; link: where a link leads, "" for a file."""

    size: int = 0
    modified_ns: int = 0
    inode: int = 0
    is_executable: bool = False
    link: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of a directory by their paths, relative to it; and what was left out, with its reasons."""

    files: dict[str, Seen] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problem: str | None = None  # a sentence: it is not all that is there


def is_safe(path: str) -> bool:
    """Whether this can be the path of a file below any directory: relative, normal, printable, not too long."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return (
        0 < len(encoded) <= MOST_PATH_BYTES
        and len(parts) <= MOST_LEVELS
        and path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and len(part.encode()) <= MOST_NAME_BYTES for part in parts)
    )


def is_inside(path: str, target: str) -> bool:
    """Whether a link at this path leads to another path below the same directory."""
    if not target or target.startswith("/"):
        return False
    return is_safe(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))


def look(directory: Path) -> Listing:
    """List a directory; what vanishes meanwhile is not listed. A link to a directory is not followed."""
    listing = Listing()
    pending = [""]
    left = MOST_ENTRIES
    while pending:
        below = pending.pop()
        try:
            with os.scandir(directory / below) as found:
                entries = sorted(islice(found, left), key=lambda each: each.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if below and isinstance(error, PermissionError):
                listing.left_out[below] = UNREADABLE
                continue
            return replace(listing, problem=f"Its directory can't be read: {error.strerror}.")
        left -= len(entries)
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            with contextlib.suppress(OSError):
                _add(listing, pending, path, entry)
        if len(listing.files) > MOST_FILES or not left:
            return replace(listing, problem=f"A directory with more than {MOST_FILES:,} files is not stored.")
    return listing


def _add(listing: Listing, pending: list[str], path: str, entry: os.DirEntry[str]) -> None:
    if not is_safe(path):
        listing.left_out[path] = "its name can't be kept"
    elif entry.is_symlink():
        target = os.readlink(entry.path)
        if is_inside(path, target) and target.isprintable():
            listing.files[path] = Seen(link=target)
        else:
            listing.left_out[path] = "it is a link that leads out of its directory"
    elif entry.is_dir(follow_symlinks=False):
        pending.append(path)
    elif entry.is_file(follow_symlinks=False):
        status = entry.stat(follow_symlinks=False)
        if may_read(status, entry.path):
            listing.files[path] = seen(status)
        else:
            listing.left_out[path] = UNREADABLE
    else:
        listing.left_out[path] = "it is no regular file"


def may_read(status: os.stat_result, path: str) -> bool:
    """Whether this process may read a file: a container of a simulation may have written it as another user."""
    is_ours = status.st_uid == os.geteuid() and status.st_mode & stat.S_IRUSR
    return bool(is_ours) or os.access(path, os.R_OK)


def seen(status: os.stat_result) -> Seen:
    """What this status of a regular file tells."""
    return Seen(status.st_size, status.st_mtime_ns, status.st_ino, bool(status.st_mode & stat.S_IXUSR))


def open_for_writing(directory: Path) -> set[str]:
    """The files below a directory that some process of this user has open for writing, by their paths."""
    found: set[str] = set()
    prefix = f"{os.path.realpath(directory)}/"
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{number}")
                    if target.startswith(prefix) and _writes(pid, number):
                        found.add(target[len(prefix) :])
    return found


def _writes(pid: str, number: str) -> bool:
    for line in Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
