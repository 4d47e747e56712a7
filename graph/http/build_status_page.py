"""The page that stands in for the dashboard until it is built: how far it is, or why it is not.

Whoever builds it (web/build.py) says so in a file and holds a lock meanwhile, which the kernel gives back however it
ends: so a build that was killed does not look like one that goes on. The page asks again by itself, and gives way to
the real one.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
from hashlib import sha256
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template

from starlette.responses import HTMLResponse, PlainTextResponse, Response

PROGRESS = Path(".build", "progress.json")  # in web/: {"lines": [...], "failure": null or a sentence}
LOCK = Path(".build", "lock")
LOOK_AGAIN_SECONDS = 2
MOST_LINES = 20

TEMPLATE = Template((Path(__file__).parent / "build_status_page.html").read_text(encoding="utf-8"))


def _digest_of(tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", TEMPLATE.template, re.DOTALL)
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_digest_of('style')}; script-src {_digest_of('script')}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(builder: Path, *, as_html: bool) -> Response:
    """Say why there is no dashboard yet. builder: the folder of whoever builds it."""
    title, sentence, lines = _said(builder)
    headers = {"Retry-After": str(LOOK_AGAIN_SECONDS), "Vary": "Accept"}
    if not as_html:
        return PlainTextResponse(f"{title}. {sentence}\n", HTTPStatus.SERVICE_UNAVAILABLE, headers)
    content = TEMPLATE.substitute(
        title=escape(title), sentence=escape(sentence), lines=escape("\n".join(lines[-MOST_LINES:]))
    )
    headers["Content-Security-Policy"] = POLICY
    return HTMLResponse(content, HTTPStatus.SERVICE_UNAVAILABLE, headers)


def _said(builder: Path) -> tuple[str, str, list[str]]:
    try:
        told = json.loads((builder / PROGRESS).read_text(encoding="utf-8"))
        lines, failure = [str(line) for line in told["lines"]], told["failure"]
    except (OSError, ValueError, TypeError, KeyError):
        lines, failure = [], None
    if _goes_on(builder):
        return "The dashboard is being built", "That takes a minute, once. This page then gives way to it.", lines
    if failure is not None:
        return "The dashboard could not be built", f"{failure} To try again: make web", lines
    return "The dashboard is not built", "To build it: make web. In a package, it is built already.", []


def _goes_on(builder: Path) -> bool:
    """Whether somebody holds the lock."""
    try:
        lock = os.open(builder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
