"""The archive: the same sources make the same file, which runs wherever there is Python."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runner import archive


def test_the_same_sources_make_the_same_bytes_whatever_their_order_and_age(tmp_path: Path) -> None:
    contents = archive.sources()
    assert archive.build(contents) == archive.build(dict(reversed(contents.items())))
    assert archive.digest(contents) == archive.digest(dict(reversed(contents.items())))
    path = archive.install(tmp_path / "supervisors")
    assert path == archive.install(tmp_path / "supervisors")
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_other_sources_make_another_file_beside_the_first(tmp_path: Path) -> None:
    first = archive.install(tmp_path)
    second = archive.install(tmp_path, {**archive.sources(), "runner/supervisor/more.py": b""})
    assert first != second
    assert {*tmp_path.iterdir()} == {first, second}


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = archive.install(tmp_path)
    before = path.stat()
    archive.install(tmp_path)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_it_holds_what_it_imports_at_once_and_nothing_else(tmp_path: Path) -> None:
    """Nothing is left to import for a forked supervisor, which may outlive the file."""
    path = archive.install(tmp_path)
    names = {name for name in zipfile.ZipFile(path).namelist() if name.endswith(".py")}
    assert {"__main__.py", "runner/__init__.py", "runner/processes.py", "runner/supervisor/run.py"} <= names
    code = (
        f"import sys; sys.path = [{str(path)!r}, *sys.path]; import runner.supervisor.__main__\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'runner'))\n"
        "assert all(sys.modules[name].__file__.startswith(sys.path[0]) for name in sys.modules if name[:6] == 'runner')"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd="/", env={}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    imported = {name.replace(".", "/") for name in ran.stdout.split()}
    assert {name.removesuffix(".py").removesuffix("/__init__") for name in names} - {"__main__"} == imported


@pytest.mark.parametrize("is_same_version", [True, False])
def test_compiled_modules_are_for_the_same_version_of_python(tmp_path: Path, is_same_version: bool) -> None:
    contents = archive.with_compiled({"__main__.py": b"import module", "module.py": b"print('compiled')"})
    contents["module.py"] = b"print('anew')"
    if not is_same_version:
        contents["module.pyc"] = b"\0\0\r\n" + contents["module.pyc"][4:]
    program = tmp_path / "program.pyz"
    program.write_bytes(archive.build(contents))
    ran = subprocess.run([sys.executable, "-I", "-S", str(program)], capture_output=True, text=True, check=True)
    assert ran.stdout == ("compiled\n" if is_same_version else "anew\n")


def test_modules_are_compiled_once_for_all_engines_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = archive.with_compiled(archive.sources())
    monkeypatch.setattr(archive, "compile", None, raising=False)  # any call fails
    assert archive.with_compiled(archive.sources()) == first


def test_what_is_installed_has_its_modules_compiled(tmp_path: Path) -> None:
    """Without: twice the time for a launcher's start, and a seventh more memory for each of its forks."""
    names = zipfile.ZipFile(archive.install(tmp_path)).namelist()
    assert sorted(names) == sorted([*archive.sources(), *(f"{name}c" for name in archive.sources())])


def test_without_a_directory_to_work_on_it_ends_with_an_error(tmp_path: Path) -> None:
    program = archive.install(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(program), str(tmp_path / "none")],
        env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "config.json" in ran.stderr


@pytest.mark.parametrize("name", sorted(archive.sources()))
def test_its_syntax_is_that_of_python_3_9(name: str) -> None:
    ast.parse(archive.sources()[name], name, feature_version=(3, 9))
