"""Links in the documents: their files and headings exist, and the index names every page."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import ROOT
from pages import anchors, documents, links

INDEX = ROOT / "docs" / "README.md"


def broken(page: Path) -> list[str]:
    found = []
    for target in links(page):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_has_a_target(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The page, `a`\n[one](#the-page-a) [two](page.md#the-page-a) [three](#no) [four](no.md) ![five](no.png)\n"
        "```\n[six](no.md)\n```\n`[seven](no.md)`\n"
    )
    assert broken(page) == ["#no", "no.md", "no.png"]


def test_the_index_names_every_page() -> None:
    named = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    assert {page for page in (ROOT / "docs").glob("*.md") if page != INDEX} - named == set()
