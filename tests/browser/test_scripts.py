"""Unit tests of the pages' scripts, without a browser: web/tests, by Vitest."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parents[2] / "web"


async def test_what_the_pages_reckon_with() -> None:
    vitest = await asyncio.create_subprocess_exec(
        sys.executable, WEB / "build.py", "test", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await vitest.communicate()
    assert vitest.returncode == 0, said.decode()
