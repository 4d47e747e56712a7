"""A real Chromium before a real service with the pages as they were built.

`page` is a tab on the service; `open_page` opens more of them, each as if in a browser of its own, but for what is in
the browser's caches (`Profiles`). A test fails with whatever a page complains of: errors on its console (broken
Content-Security-Policies are among them), exceptions that unhandled, requests to another host. What a test means to
provoke it says with `complaints.expect(REGEX)`.

Where there is no Chromium these tests are skipped; with REQUIRE_BROWSER set, as in CI, they fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from databases import Databases
from lending import Lender
from live import Service, within
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    async_playwright,
    expect,
)

HERE = Path(__file__).parent
ROOT = HERE.resolve().parents[1]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
# The headless shell is the same engine without the windows of a desktop's browser, which took 43 % of its CPU.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--process-per-site",
)  # fmt: skip
PATIENCE_MILLISECONDS = 60_000  # a bound for what takes less than one: the machine may be busy
PATIENCE_SECONDS = 300  # of a whole test; the first one may have to wait for the build
MOST_PROFILES = 3  # that wait for their next test, each a process of some 100 MiB
TOKEN = f"sim_{'a' * 43}"
WIDE: ViewportSize = {"width": 1440, "height": 900}
NARROW: ViewportSize = {"width": 360, "height": 740}
# Of what is in order axe would describe each element, and the browser would hand all of that over. Of what it loads
# before, only `css-orientation-lock`, which is off, asks for the style sheets.
# Of a table's rows with the same markup, which differ in texts and values alone, three are judged: a hundred take most
# of what their page does.
JUDGE = """async options => {
    const kept = ['class', 'role', 'type', 'scope', 'tabindex']
    const told = ({ name, value, ownerElement }) =>
        kept.includes(name) || (name === 'style' && ownerElement.textContent.trim()) ? value : !!value
    const shape = node => node.nodeType !== Node.ELEMENT_NODE ? !!node.data.trim() :
        [node.tagName, [...node.attributes].map(each => [each.name, told(each)]), [...node.childNodes].map(shape)]
    const known = body => {
        const seen = {}
        return [...body.rows].filter(row => {
            const markup = JSON.stringify(shape(row))
            seen[markup] = (seen[markup] ?? 0) + 1
            return seen[markup] > 3
        })
    }
    const context = { include: [document], exclude: [...document.querySelectorAll('tbody')].flatMap(known) }
    const asked = { resultTypes: ['violations'], preload: { assets: ['media'] }, ...options }
    return (await axe.run(context, asked)).violations
}"""

# Dark, a page has other colours and nothing else (web/src/app.css): these rules look at colours.
ABOUT_COLOURS = ("color-contrast", "link-in-text-block")

LENDER = pytest.StashKey[Lender]()

OpenPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all tests of this folder: the browser lives in it."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.timeout(PATIENCE_SECONDS))


@pytest.fixture(scope="session")
def lender(databases: Databases, fill: Callable[[Path], None], request: pytest.FixtureRequest) -> Iterator[Lender]:
    """The services of all files here: nearly all tests ask for the same, and a start takes as much as two of them."""
    lender = request.config.stash[LENDER] = Lender(databases.lend, fill)
    yield lender
    lender.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the services that wait before tests of elsewhere: idle ones would go on taking CPU."""
    if LENDER in item.config.stash and not (nextitem and nextitem.path.is_relative_to(HERE)):
        item.config.stash[LENDER].close()


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
        await close(browser)


async def close(opened: Browser | BrowserContext) -> None:
    """Close it; Playwright would wait for a browser that hangs without an end."""
    async with within(PATIENCE_MILLISECONDS / 1000, f"{opened} is closed"):
        await opened.close()


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


@dataclass
class Profile:
    """A browser context, with a tab on a picture of the service, which runs nothing and stays open.

    All tabs of a context are in one process (--process-per-site), which has compiled the scripts: this one keeps it.
    """

    context: BrowserContext
    tab: Page

    @classmethod
    async def make(cls, browser: Browser, options: Mapping[str, Any]) -> Profile:
        context = await browser.new_context(**options)
        tab = await context.new_page()
        await tab.goto("/favicon.svg")
        return cls(context, tab)

    async def empty(self) -> None:
        """Make it as it was, but for its caches."""
        for page in self.context.pages:
            if page is not self.tab:
                await page.close()
        await self.context.unroute_all()
        await self.context.clear_cookies()
        # Of the process that the next page is in: it has a copy of what is stored.
        async with within(PATIENCE_MILLISECONDS / 1000, "what the browser stores is cleared"):
            assert await self.tab.evaluate("(localStorage.clear(), localStorage.length)") == 0


class Profiles:
    """Profiles that are lent to one test after another: a page loads in half of the CPU where its scripts are known.

    Emptying undoes open pages, routes, cookies and stored items. A test that changes more (the clock), or whose subject
    is what a browser loads, asks for a profile of its own. The one of a test that failed is not lent again.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self._waiting: dict[str, Profile] = {}  # by their options, the one used last at the end

    @asynccontextmanager
    async def lend(self, options: Mapping[str, Any], has_failed: Callable[[], bool]) -> AsyncIterator[BrowserContext]:
        key = str(sorted(options.items()))
        profile = self._waiting.pop(key, None) or await Profile.make(self.browser, options)
        yield profile.context
        if has_failed() or key in self._waiting:
            await close(profile.context)
            return
        await profile.empty()
        self._waiting[key] = profile
        if len(self._waiting) > MOST_PROFILES:
            await close(self._waiting.pop(next(iter(self._waiting))).context)


@pytest.fixture(scope="session")
def profiles(browser: Browser) -> Profiles:
    return Profiles(browser)


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(
    profiles: Profiles, service: Service, complaints: Complaints, has_failed: Callable[[], bool]
) -> AsyncIterator[OpenPage]:
    """Open a page as in a new browser: `await open_page("/machines", viewport=NARROW)`.

    own: in a profile that has loaded nothing yet, and that no other test gets.
    """
    async with AsyncExitStack() as stack:

        async def open_one(
            address: str | None = "/", *, viewport: ViewportSize = WIDE, own: bool = False, **options: Any
        ) -> Page:
            options = {"base_url": service.address, "viewport": WIDE, "reduced_motion": "reduce", **options}
            if own:
                context = await profiles.browser.new_context(**options)
                stack.push_async_callback(close, context)
            else:
                context = await stack.enter_async_context(profiles.lend(options, has_failed))
            context.set_default_timeout(PATIENCE_MILLISECONDS)
            page = await context.new_page()
            await page.set_viewport_size(viewport)
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
    """Judge a page as it is in light, and its colours in dark: `await axe(page)`. Fails with axe's findings."""

    async def judge(page: Page) -> None:
        if not await page.evaluate("'axe' in window"):
            # Not as a script of the page, which the page would refuse.
            await page.evaluate(AXE.read_text(encoding="utf-8"))
        for scheme, rules in (("light", None), ("dark", ABOUT_COLOURS)):
            await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its words
            async with within(PATIENCE_MILLISECONDS / 1000, f"axe judges {page.url}"):
                violations = await page.evaluate(JUDGE, {"runOnly": rules} if rules else {})
            assert [say(violation) for violation in violations] == [], f"in {scheme}"

    return judge


def say(violation: dict[str, Any]) -> str:
    nodes = [f"{node['html'][:200]}: {node['failureSummary']}" for node in violation["nodes"]]
    return f"{violation['id']} ({violation['impact']}): {violation['help']}\n" + "\n".join(nodes)
