"""The page of settings is what `make docs` makes of settings.py."""

from __future__ import annotations

import importlib.util

from live import ROOT

from settings import Settings


def test_the_page_is_up_to_date_and_names_every_setting() -> None:
    spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "docs" / "settings_reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")

    assert page == reference.page(), "settings.py was changed: make docs"
    assert page.count("\n| `") == len(Settings.model_fields)
