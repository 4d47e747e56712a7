"""Removal of directories that simulations wrote into: trees of any depth, and names of any kind.

`shutil.rmtree` keeps a frame and a descriptor per level: a tree of 1,500 nested directories makes it
fail with RecursionError or EMFILE. What `rmtree` can't remove is left to rm (coreutils), which walks such trees in
constant space. Directories without the owner's write permission (Go's module cache, a checkpoint that was protected on
purpose) are given it first. Links are not followed.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

MAX_SENTENCE = 300  # characters of rm's message: a path in the message may be 4,096 long


def remove_tree(directory: Path) -> None:
    """Remove a directory and its content. Raises OSError with rm's first sentence if something stays."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        if not directory.exists():
            return
        _remove_by_rm(directory)  # something in it vanished on the way
    except (OSError, RecursionError):
        _remove_by_rm(directory)


def _remove_by_rm(directory: Path) -> None:
    done = _run("rm", "-rf", directory)
    if done.returncode:
        with suppress(OSError):
            _run("chmod", "-R", "u+rwx", directory)
            done = _run("rm", "-rf", directory)
    if done.returncode:
        said = (done.stderr.splitlines() or [f"rm ended with {done.returncode}"])[0]
        raise OSError(said[:MAX_SENTENCE])


def _run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    *options, directory = arguments
    return subprocess.run(
        [program, *map(str, options), "--", str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
