"""The supervisor runs on Python 3.9: other engines bring their own Python.

All of its modules keep to the syntax of 3.9, here by the parser of this Python. Where a Python 3.9 is installed, a
supervisor runs in it from the archive.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import archive

PLACES = (Path.home() / ".pyenv" / "versions", Path.home() / ".local" / "share" / "uv" / "python")


def find_python() -> str | None:
    """A Python 3.9 that answers: on PATH, of pyenv, of uv."""
    named = [shutil.which("python3.9")]
    named += [str(path) for place in PLACES for path in sorted(place.glob("*3.9*/bin/python3.9"))]
    for each in filter(None, named):
        answer = subprocess.run([each, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if answer.stdout.strip() == "(3, 9)":
            return each
    return None


@pytest.mark.parametrize("name", sorted(archive.sources()))
def test_every_module_of_the_archive_keeps_to_the_syntax_of_3_9(name: str) -> None:
    tree = ast.parse(archive.sources()[name], feature_version=(3, 9))
    assert not any(type(node).__name__ in ("Match", "TryStar") for node in ast.walk(tree))
    evaluated = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.Call)  # an alias such as `A = int | None` is evaluated, unlike annotations
        for inner in ast.walk(node.value if isinstance(node, ast.Assign) else node)
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.BitOr) and isinstance(inner.right, ast.Constant)
        and inner.right.value is None
    ]  # fmt: skip
    assert evaluated == []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call for call in calls if getattr(call.func, "id", "") == "zip" and call.keywords]  # strict: 3.10
    assert not [call for call in calls for keyword in call.keywords if keyword.arg == "slots"]  # dataclass: 3.10


@pytest.mark.skipif(find_python() is None, reason="no Python 3.9 here")
def test_a_supervisor_runs_in_python_3_9(service: Any, supervise: Any, tmp_path: Path, monkeypatch: Any) -> None:
    python = find_python()
    assert python is not None
    monkeypatch.setattr(sys, "executable", python)
    code = (
        'print(\'{"step": 1, "loss": 0.5}\')\n'
        "for s in range(4): print(f'[{s}]\\ttrain-rmse:0.{s}1')\n"
        "print({'loss': 0.25, 'epoch': 1.0}); print('L=3'); print('{\"step\": 1, \"loss\": 1}')"
    )
    started = supervise(code, metricsPatterns=[r"L=(?P<l>\S+)"])
    assert started.wait() == 0, started.complaints
    assert service.points("loss") == [(1, 0.5), (4, 0.25)]  # a line without a step gets the next number
    assert service.points("train-rmse") == [(0, 0.01), (1, 0.11), (2, 0.21), (3, 0.31)]
    assert service.points("l")
    assert service.notices["NOT_RISING"]["count"] == 1
