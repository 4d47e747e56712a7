"""Generated pages (settings, command line) equal the output of `make docs`."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from live import ROOT

from settings import Settings


def maker(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings_reference", "cli_reference"])
def test_the_page_is_up_to_date(name: str) -> None:
    made = maker(name)

    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "the code was changed: make docs"


def test_the_pages_name_every_setting_and_every_command() -> None:
    assert maker("settings_reference").page().count("\n| `") == len(Settings.model_fields)

    commands = maker("cli_reference").page()
    for name in ("up", "submit", "machines add", "token create"):
        assert f"\n## simulations {name}\n" in commands
