"""The distribution: what it installs, what it imports, and that Python 3.9 runs it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
MODULES = sorted((CLIENT / "simulations").glob("*.py"))


def imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_each_module_imports_the_standard_library_only_and_keeps_to_python_3_9(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 9))
    assert imported(tree) <= sys.stdlib_module_names
    assert not [node for node in ast.walk(tree) if type(node).__name__ in ("Match", "TryStar")]


def test_the_wheel_holds_the_package_simulations_and_nothing_else(tmp_path: Path) -> None:
    built = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=CLIENT)
    assert built.returncode == 0
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"simulations", "simulations_client-0.1.0.dist-info"}
    assert {name for name in names if name.endswith(".py")} == {f"simulations/{each.name}" for each in MODULES}


def test_the_service_has_no_module_of_that_name() -> None:
    code = "import importlib.util; print(importlib.util.find_spec('simulations'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.sep)
    assert found.stdout.strip() == "None"
    assert find_spec("simulations") is not None  # of the tests' own path
