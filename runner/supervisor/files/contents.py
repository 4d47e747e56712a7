"""Files of a directory as the store keeps them: regular files, and links that lead to another one of them.

Names come from the simulation: what could not be written elsewhere, or would deceive a reader of a list, is left out
and counted. What is open for writing, or has changed between two looks, is not complete.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from dataclasses import dataclass, field
from pathlib import Path

MOST_FILES = 10_000
MOST_PATH_BYTES = 1_000
MOST_NAME_BYTES = 255  # of Linux
MOST_LEVELS = 50


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
    is_cut: bool = False  # there are more than MOST_FILES


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
    while pending:
        below = pending.pop()
        try:
            entries = sorted(os.scandir(directory / below), key=lambda each: each.name)
        except OSError:
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            with contextlib.suppress(OSError):
                _add(listing, pending, path, entry)
            if len(listing.files) > MOST_FILES:
                return Listing(listing.files, listing.left_out, is_cut=True)
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
        listing.files[path] = seen(entry.stat(follow_symlinks=False))
    else:
        listing.left_out[path] = "it is no regular file"


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
