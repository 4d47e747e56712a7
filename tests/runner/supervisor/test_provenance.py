"""Source of an attempt: git read from files and asked for changes, the interpreter's packages, credentials left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor import provenance
from runner.supervisor.provenance import find_repository, without_credentials

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


def git(directory: Path, *words: str) -> str:
    ended = subprocess.run(["git", *IDENTITY, *words], cwd=directory, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a file, a commit and a remote."""
    root = tmp_path / "project"
    (root / "inner").mkdir(parents=True)
    (root / "train.py").write_text("print(1)\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    git(root, "remote", "add", "fork", "https://example.org/fork.git")
    git(root, "remote", "add", "origin", "https://ada:secret@example.org/team/project.git?token=secret")
    return root


def facts(service: Any) -> list[dict[str, Any]]:
    return [batch["facts"]["source"] for batch in service.stored if "source" in batch.get("facts", {})]


@pytest.mark.parametrize("state", ["loose", "packed", "detached", "worktree"])
def test_the_commit_is_read_from_the_repositorys_files(state: str, repository: Path, tmp_path: Path) -> None:
    place = repository / "inner"
    if state == "packed":
        git(repository, "pack-refs", "--all")
    elif state == "detached":
        git(repository, "checkout", "--detach")
    elif state == "worktree":
        git(repository, "worktree", "add", str(tmp_path / "linked"), "-b", "other")
        place = tmp_path / "linked"
        git(place, "commit", "--allow-empty", "-m", "second")
    found = find_repository(place)
    assert found is not None
    assert provenance.commit(found) == git(place, "rev-parse", "HEAD")
    assert provenance.remote(found) == "https://example.org/team/project.git"


def test_a_repository_without_a_commit_and_a_directory_without_a_repository(tmp_path: Path) -> None:
    assert find_repository(tmp_path) is None
    git(tmp_path, "init")
    found = find_repository(tmp_path)
    assert found is not None
    assert (provenance.commit(found), provenance.remote(found)) == (None, None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:token@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://token@example.org/a?private_token=x#y", "https://example.org/a"),
        ("ssh://git@example.org:22/a.git", "ssh://git@example.org:22/a.git"),
        ("ssh://git:secret@example.org/a.git", "ssh://git@example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("user:secret@example.org:a/b.git", "example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("https://[broken", None),
    ],
)
def test_credentials_are_taken_out_of_a_remote(url: str, shown: str | None) -> None:
    assert without_credentials(url) == shown


def test_tracked_changes_make_it_dirty_and_no_program_of_the_repository_runs(repository: Path, tmp_path: Path) -> None:
    found = find_repository(repository)
    assert found is not None
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    ran = tmp_path / "ran"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    (repository / "new.txt").write_text("untracked")
    assert provenance.is_dirty(found, environment, 60) is False
    (repository / "train.py").write_text("print(2)\n")
    assert provenance.is_dirty(found, environment, 60) is True
    assert not ran.exists()
    assert provenance.is_dirty(found, {"PATH": str(tmp_path)}, 60) is None, "without git"
    assert provenance.is_dirty(found, environment, 0) is None, "out of time"


def test_the_interpreter_is_that_of_the_command(tmp_path: Path) -> None:
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name, text in (
        ("tool", f"#!{sys.executable}\n"),
        ("env-tool", "#!/usr/bin/env -S python3 -u\n"),
        ("script", "#!/bin/sh\n"),
        ("binary", "\x7fELF"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    of = provenance.interpreter
    assert of([sys.executable, "x.py"], environment, tmp_path) == sys.executable
    assert of(["tool"], environment, tmp_path) == sys.executable
    assert of(["./env-tool"], environment, tmp_path) == provenance._which("python3", environment, tmp_path)
    assert [of([each], environment, tmp_path) for each in ("script", "binary", "gone", "\0")] == [None] * 4


def test_packages_are_the_interpreters_whatever_lies_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "sub").mkdir()
    found = provenance.packages(sys.executable, {"PATH": os.environ["PATH"]}, tmp_path)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["pytest"] == pytest.__version__
    assert provenance.packages("/bin/true", {}, tmp_path) == {}


def test_a_long_environment_is_cut(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for index in range(1_500):
        place = site / f"package_{index:04}_{'x' * 60}-1.0.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: package-{index:04}-{'x' * 60}\nVersion: 1.0\n")
    packages = provenance.packages(sys.executable, {"PYTHONPATH": str(site)}, tmp_path)["packages"]
    assert isinstance(packages, dict)
    assert 300 < len(packages) < provenance.MAX_PACKAGES
    assert provenance._cut(["a" * 5_000, "b" * 5_000, "c"]) == ["a" * 5_000, "b" * 3_191]


def test_a_run_records_its_source_once(service: Any, supervise: Any, repository: Path) -> None:
    (repository / "train.py").write_text("import os, time\nwhile not os.path.exists('finish'): time.sleep(0.01)\n")
    entrypoint = [sys.executable, "train.py"]
    secret = {"TOKEN": "secret-value"}
    started = supervise(entrypoint=entrypoint, workingDirectory=str(repository), environment=secret)
    service.wait(lambda: facts(service))
    (repository / "finish").touch()
    assert started.wait() == 0
    (source,) = facts(service)
    assert source["commit"] == git(repository, "rev-parse", "HEAD")
    assert source["dirty"] is True
    assert source["remote"] == "https://example.org/team/project.git"
    assert source["command"] == entrypoint
    assert source["packages"]["pytest"] == pytest.__version__
    assert source.keys() == {"commit", "dirty", "remote", "command", "host", "python", "packages"}
    assert "secret" not in str(source)


def test_a_run_that_ends_at_once_records_its_commit_and_runs_no_interpreter(
    service: Any, supervise: Any, repository: Path
) -> None:
    assert supervise(entrypoint=["true", str(repository / "train.py")]).wait() == 0
    (source,) = facts(service)
    assert source["commit"] == git(repository, "rev-parse", "HEAD")
    assert source["dirty"] is False
    assert source.keys() == {"commit", "dirty", "remote", "command", "host"}


def test_a_run_that_ends_at_once_outside_a_repository_reports_only_its_exit(service: Any, supervise: Any) -> None:
    assert supervise(entrypoint=["true"]).wait() == 0
    assert [batch.keys() - {"attemptId", "nonce", "batch"} for batch in service.stored] == [{"exit"}]
