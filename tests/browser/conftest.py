"""A real Chromium before a real service with the pages as they were built.

`page` is a tab on the service; `open_page` opens more of them, each as if in a browser of its own. A test fails with
whatever a page complains of: errors on its console (broken Content-Security-Policies are among them), exceptions that
unhandled, requests to another host. What a test means to provoke it says with `complaints.expect(REGEX)`.

Where there is no Chromium these tests are skipped; with REQUIRE_BROWSER set, as in CI, they fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from live import Service
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
# The headless shell is the same engine without the windows of a desktop's browser, which took 43 % of its CPU.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MILLISECONDS = 60_000  # a bound for what takes less than one: the machine may be busy
PATIENCE_SECONDS = 300  # of a whole test; the first one may have to wait for the build
TOKEN = f"sim_{'a' * 43}"
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 360, "height": 740}
# Of what is in order axe would describe each element, and the browser would hand all of that over.
JUDGE = """async options =>
    (await axe.run(document, { resultTypes: ['violations'], ...options })).violations
"""

OpenPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all tests of this folder: the browser lives in it."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.timeout(PATIENCE_SECONDS))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's headless shell or of Chromium, which has other names on other systems."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(
            "There is no Chromium on this machine: the pages are NOT tested (apt-get install chromium)."
        )
    return found


@pytest.fixture(scope="session")
def built() -> Path:
    """web/dist, built if need be."""
    done = subprocess.run([sys.executable, ROOT / "web" / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / "web" / "dist"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """One for all tests of a worker."""
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def token_file(scratch: Path) -> Path:
    """Where a service that asks for a token finds its ADMIN's."""
    file = scratch / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


@pytest.fixture
def token() -> str:
    """The ADMIN's token of a service that asks for one."""
    return TOKEN


@pytest_asyncio.fixture(loop_scope="session")
async def service(request: pytest.FixtureRequest, lend: Any, built: Path, token_file: Path) -> AsyncIterator[Service]:
    """A service that is up, with the pages, and with nothing in it.

    Parametrized with settings, indirectly, it has those. One that is reached from elsewhere asks for a token.
    """
    settings = getattr(request, "param", {})
    if "SIMULATIONS_ALLOWED_HOSTS" in settings:
        settings = {"SIMULATIONS_ADMIN_TOKEN_FILE": str(token_file), **settings}
    async with lend(**settings) as service:
        yield service


@dataclass
class Complaints:
    """What pages complained of."""

    made: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """What matches is meant."""
        self.expected.append(pattern)

    def watch(self, page: Page, own_host: str) -> None:
        def asks(request: Request) -> None:
            address = urlsplit(request.url)
            if address.scheme not in ("data", "blob") and address.netloc != own_host:
                self.made.append(f"asked another host: {request.url}")

        def says(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.made.append(f"on the console: {message.text} ({message.location.get('url', '')})")

        page.on("request", asks)
        page.on("websocket", lambda socket: self._of_socket(urlsplit(socket.url).netloc, own_host))
        page.on("console", says)
        page.on("pageerror", lambda error: self.made.append(f"not caught: {error}"))

    def _of_socket(self, host: str, own_host: str) -> None:
        if host != own_host:
            self.made.append(f"opened a socket to another host: {host}")

    @property
    def unexpected(self) -> list[str]:
        return [each for each in self.made if not any(re.search(pattern, each) for pattern in self.expected)]


@pytest.fixture
def complaints() -> Any:
    """All that pages complain of; the test fails with it."""
    complaints = Complaints()
    yield complaints
    assert complaints.unexpected == []


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, service: Service, complaints: Complaints) -> AsyncIterator[OpenPage]:
    """Open a page as in a new browser: `await open_page("/machines", viewport=NARROW)`."""
    async with AsyncExitStack() as stack:

        async def open_one(address: str | None = "/", **options: Any) -> Page:
            options = {"base_url": service.address, "viewport": WIDE, "reduced_motion": "reduce", **options}
            context = await browser.new_context(**options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MILLISECONDS)
            page = await context.new_page()
            complaints.watch(page, urlsplit(service.address).netloc)
            if address is not None:
                await page.goto(address)
            return page

        yield open_one


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_page: OpenPage) -> Page:
    """A tab that is nowhere yet, wide and light."""
    return await open_page(None)


@pytest.fixture
def axe() -> Callable[..., Awaitable[None]]:
    """Judge a page as it is, in light and in dark: `await axe(page)`. Fails with axe's findings."""

    async def judge(page: Page, **options: Any) -> None:
        # Not as a script of the page, which the page would refuse.
        await page.evaluate(AXE.read_text(encoding="utf-8"))
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its words
            violations = await page.evaluate(JUDGE, options)
            assert [say(violation) for violation in violations] == [], f"in {scheme}"

    return judge


def say(violation: dict[str, Any]) -> str:
    nodes = [f"{node['html'][:200]}: {node['failureSummary']}" for node in violation["nodes"]]
    return f"{violation['id']} ({violation['impact']}): {violation['help']}\n" + "\n".join(nodes)
