"""Directories that simulations wrote into are removed, however deep they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runner.removal import remove_tree

NEST = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"

ROOT = Path(__file__).parents[2]
PROTECTED = """
import os, sys
from pathlib import Path
from runner.removal import remove_tree
for mode in (0o555, 0o000):
    tree = Path(sys.argv[1]) / oct(mode)
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch(0o400)
    (tree / "link").symlink_to(sys.argv[2])
    for each in (tree / "a" / "b", tree / "a", tree):
        each.chmod(mode)
    remove_tree(tree)
    assert not tree.exists(), oct(mode)
"""


def nest(directory: Path) -> None:
    """1,500 directories in one another: more than a stack has frames, a process descriptors, or a path characters."""
    subprocess.run([sys.executable, "-I", "-S", "-c", NEST], cwd=directory, check=True)


def test_a_deep_tree_goes(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    nest(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_what_is_behind_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "precious" / "d").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    nest(tmp_path / "tree")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious" / "d").is_dir()


def test_directories_that_are_not_writable_go_too(tmp_path: Path) -> None:
    """For root all are: so this runs as another user. Go's module cache consists of such directories."""
    with tempfile.TemporaryDirectory() as name:
        precious = tmp_path / "precious"
        precious.touch(0o400)
        other: tuple[str, ...] = ()
        if os.getuid() == 0:
            shutil.chown(name, "simulations")
            other = ("setpriv", "--reuid=simulations", "--clear-groups")
        done = subprocess.run(
            [*other, sys.executable, "-c", PROTECTED, name, str(precious)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert precious.stat().st_mode & 0o777 == 0o400


def test_a_directory_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "tree")


def test_what_can_not_be_removed_is_an_error_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    nest(tmp_path / "tree")
    rm = tmp_path / "bin" / "rm"
    rm.parent.mkdir()
    rm.write_text("#!/bin/sh\necho \"rm: cannot remove '$3': Operation not permitted\" >&2\nexit 1\n")
    rm.chmod(0o755)
    with monkeypatch.context() as context:
        context.setenv("PATH", str(rm.parent))
        with pytest.raises(OSError, match=r"cannot remove .*tree': Operation not permitted"):
            remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
