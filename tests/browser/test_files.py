"""Stored files on the page of a simulation: list, previews that are never markup, and downloads."""

from __future__ import annotations

import sys
from typing import Any

from live import Service
from playwright.async_api import expect

OpenPage = Any  # the fixture of conftest.py

HTML = "<img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"
TABLE = 'a,b\n1,"two, and\n""three"""\n'
WRITES = f"""
import base64, os, pathlib
place = pathlib.Path(os.environ["SIMULATION_OUTPUT_DIR"])
(place / "notes.html").write_text({HTML!r})
(place / "table.csv").write_text({TABLE!r})
(place / "dot.png").write_bytes(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
))
(place / "model.bin").write_bytes(bytes(3_000_000))
"""


async def test_files_are_listed_previewed_and_downloaded(service: Service, open_page: OpenPage) -> None:
    simulation = await service.submit(sys.executable, "-c", WRITES)
    await service.finished(simulation)
    page = await open_page(f"/simulations/{simulation}")
    panel = page.get_by_test_id("files")
    await panel.get_by_text("Files", exact=True).click()
    await expect(panel.get_by_text("4 files, 2.9 MiB")).to_be_visible()
    await expect(panel.get_by_role("button", name="Preview model.bin")).to_have_count(0)

    await panel.get_by_role("button", name="Preview notes.html").click()
    await expect(panel.get_by_role("region", name="Preview of notes.html").locator("pre")).to_have_text(HTML)
    await panel.get_by_role("button", name="Preview table.csv").click()
    cells = panel.get_by_role("region", name="Preview of table.csv").locator("td")
    await expect(cells).to_have_text(["a", "b", "1", 'two, and "three"'])
    await panel.get_by_role("button", name="Preview dot.png").click()
    picture = panel.get_by_role("img", name="dot.png")
    await expect(picture).to_have_js_property("naturalWidth", 1)
    await panel.get_by_role("button", name="Preview dot.png").click()
    await expect(picture).to_have_count(0)

    async with page.expect_download() as coming:
        await panel.get_by_role("link", name="notes.html").click()
    download = await coming.value
    assert download.suggested_filename == "notes.html"
    assert (await download.path()).read_text() == HTML
