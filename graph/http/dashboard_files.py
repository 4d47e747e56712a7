"""Dashboard files: the dashboard's pages and GraphiQL, served as `web/` built them.

    /, /simulations/ID, ...   one page, which shows what its address says; asked again each time (ETag)
    /graphql in a browser     GraphiQL, which may write styles into itself: its editor does
    /assets/NAME-DIGEST.js    kept for a year: another content has another name; compressed when it was built
    any other address         the same page, with 404: it says so in its own words

The build is looked for at each request, so it may come, and be replaced, while this process runs. Until it is there,
pages are answered with 503 and a sentence, which the browser loads again every two seconds. Nothing here depends on
the viewer, so nothing here needs a token. No path of a request reaches the disk: what is not among the files of the
build is not found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from graph.http.headers import EDITOR_POLICY, PAGE_POLICY
from graph.http.protocol import Accept, weights_of

# As in web/src/routes.ts.
PAGES = (
    "/", "/simulations/{id}", "/compare", "/sweeps", "/sweeps/{id}", "/machines", "/plan", "/alerts", "/projects",
    "/tokens", "/costs", "/submit",
)  # fmt: skip

HERE = Path(__file__).resolve().parents[1]
CHECKOUT = HERE.parent / "web"
INSTALLED = HERE / "dist"

DASHBOARD = "index.html"
EXPLORER = "graphiql.html"
HASHED = "assets/"  # what lies in it carries a digest of its content in its name
ENCODINGS = {"br": ".br", "gzip": ".gz"}  # the smaller one first
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".woff2": "font/woff2",
}
NOT_BUILT = (
    "The dashboard is not built yet. `make run` builds it beside the service, `make web` by itself, in about a minute: "
    "its output shows how far it is. This page then gives way to it.\n"
)
LOOK_AGAIN = {
    "Retry-After": "2",  # for programs
    "Refresh": "2",  # for browsers, which don't where a policy says `sandbox`, as it would for what is no page
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASKED_AGAIN = "no-cache"


def default_places() -> tuple[Path, ...]:
    """Directories of the build, in order: of a checkout, where it was built; else of the package."""
    is_checkout = (CHECKOUT / "package.json").is_file()  # not whatever else is called web where packages are installed
    return (CHECKOUT / "dist", INSTALLED) if is_checkout else (INSTALLED,)


@dataclass(frozen=True, slots=True)
class File:
    """One file of a build, and the encodings in which it lies there, too."""

    path: Path
    name: str
    media_type: str
    digest: str
    encodings: tuple[str, ...]

    @property
    def is_hashed(self) -> bool:
        return self.name.startswith(HASHED)


@dataclass(frozen=True, slots=True)
class Build:
    """The files of a folder, by address; its `signature` changes with the folder."""

    signature: tuple[object, ...]
    files: Mapping[str, File]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Look a folder through. Raises `OSError` if it is not, or not wholly, there."""
        signature = signature_of(folder)
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if _is_own(path)}
        compressed = {name for name in found if name.endswith(tuple(ENCODINGS.values()))}
        files = {
            f"/{name}": File(
                path,
                name,
                MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
                path.name if name.startswith(HASHED) else sha256(path.read_bytes()).hexdigest()[:32],
                tuple(encoding for encoding, ending in ENCODINGS.items() if f"{name}{ending}" in compressed),
            )
            for name, path in found.items()
            if name not in compressed
        }
        return cls(signature, files)


def signature_of(folder: Path) -> tuple[object, ...]:
    """Tell a build from the next one, which may be written over it. Raises `OSError`."""
    page, hashed = (folder / DASHBOARD).stat(), (folder / HASHED).stat()
    return folder, page.st_ino, page.st_mtime_ns, page.st_size, hashed.st_ino, hashed.st_mtime_ns


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


class DashboardFiles:
    """The pages of the first place in which there is a build."""

    def __init__(self, places: tuple[Path, ...] | None = None) -> None:
        self._places = default_places() if places is None else places
        self._build: Build | None = None

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            *(Route(path, self.page) for path in PAGES),
            Route("/favicon.svg", self.file),
            Route("/assets/{name}", self.file),
        ]

    async def page(self, request: Request) -> Response:
        """The dashboard."""
        return self._page(request, DASHBOARD)

    async def explorer(self, request: Request) -> Response:
        """GraphiQL."""
        return self._page(request, EXPLORER)

    async def not_found(self, request: Request, error: Exception) -> Response:
        """The 404 response: the page for a browser that accepts one."""
        if request.method in ("GET", "HEAD") and Accept.of(request).names_html:
            return self._page(request, DASHBOARD, HTTPStatus.NOT_FOUND)
        return PlainTextResponse("Not Found", HTTPStatus.NOT_FOUND)

    async def file(self, request: Request) -> Response:
        """A file of the build, in the encoding that the client likes best."""
        build = self._current()
        file = build.files.get(request.scope["path"]) if build is not None else None
        if file is None:
            return PlainTextResponse("Not Found", HTTPStatus.NOT_FOUND)
        return _file(request, file)

    def _page(self, request: Request, name: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
        build = self._current()
        file = build.files.get(f"/{name}") if build is not None else None
        if file is None:
            return PlainTextResponse(NOT_BUILT, HTTPStatus.SERVICE_UNAVAILABLE, LOOK_AGAIN)
        return _file(request, file, status)

    def _current(self) -> Build | None:
        for folder in self._places:
            try:
                if self._build is None or signature_of(folder) != self._build.signature:
                    self._build = Build.read(folder)
            except OSError:
                continue  # not there, or on its way: it is replaced now
            return self._build
        return None


def _file(request: Request, file: File, status: HTTPStatus = HTTPStatus.OK) -> Response:
    encoding = next((each for each in file.encodings if _takes(request, each)), None)
    headers = {
        "ETag": f'"{file.digest}{f"-{encoding}" if encoding else ""}"',
        "Cache-Control": FOR_EVER if file.is_hashed else ASKED_AGAIN,
        # A worker obeys what its script came with, so scripts say it, too.
        "Content-Security-Policy": EDITOR_POLICY if file.name == EXPLORER else PAGE_POLICY,
    }
    if file.encodings or file.name == EXPLORER:
        headers["Vary"] = "Accept-Encoding" if file.encodings else "Accept"
    if status is HTTPStatus.OK and _has_it(request, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if encoding:
        headers["Content-Encoding"] = encoding
    path = file.path.with_name(file.path.name + ENCODINGS[encoding]) if encoding else file.path
    try:
        stat = os.stat(path)
    except FileNotFoundError:  # replaced within this very moment
        return PlainTextResponse("Not Found", HTTPStatus.NOT_FOUND)
    return FileResponse(path, status, headers, file.media_type, stat_result=stat)


def _takes(request: Request, encoding: str) -> bool:
    return weights_of(request.headers.getlist("accept-encoding")).get(encoding, 0.0) > 0


def _has_it(request: Request, etag: str) -> bool:
    """True if the client's copy is current (RFC 9110, section 13.1.2)."""
    shown = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in shown or "*" in shown
