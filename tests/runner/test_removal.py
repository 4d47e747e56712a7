"""Directories that simulations wrote into are removed, however deep they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.removal import remove_tree

NEST = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"


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
