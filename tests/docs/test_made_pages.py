"""Generated pages (settings, command line) equal the output of `make docs`."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

import pytest
import typer
from live import ROOT

from settings import Settings


def maker(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def page(name: str) -> str:
    """What is generated now. For the command line the tree of commands is made once, not for each command's help."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("typer.testing._get_command", cache(typer.main.get_command))
        return str(maker(name).page())


@pytest.mark.parametrize("name", ["settings_reference", "cli_reference"])
def test_the_page_is_up_to_date(name: str) -> None:
    assert maker(name).PAGE.read_text(encoding="utf-8") == page(name), "the code was changed: make docs"


def test_the_pages_name_every_setting_and_every_command() -> None:
    assert page("settings_reference").count("\n| `") == len(Settings.model_fields)

    for name in ("up", "submit", "machines add", "token create"):
        assert f"\n## simulations {name}\n" in page("cli_reference")
