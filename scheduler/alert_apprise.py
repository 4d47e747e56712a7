"""Apprise: one notification, sent by a process of its own.

Apprise has no time limit of its own and connects to any address that a URL names. So it runs in a process
(`scheduler.apprise_process`) that is killed after a time limit, that connects only to checked addresses, and whose
environment holds no secrets. The URL reaches it on standard input, never in its arguments; what Apprise prints,
the URL among it, is dropped.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from db.alert_deliveries import Sending
from policy.addresses import Network
from scheduler.alert_webhooks import DeliveryFailed

TIMEOUT_SECONDS = 30
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


async def send(sending: Sending, allowed: Sequence[Network], *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Send a notification; returns when the service accepted it. Raises `DeliveryFailed`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scheduler.apprise_process",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT, cwd="/", start_new_session=True,
    )  # fmt: skip
    order = {
        "url": sending.url, "title": sending.title, "body": sending.body, "allowed": [str(each) for each in allowed]
    }  # fmt: skip
    try:
        async with asyncio.timeout(timeout_seconds):
            answer, _ = await process.communicate(json.dumps(order).encode())
    except TimeoutError:
        raise DeliveryFailed(f"The service did not accept it within {timeout_seconds:g} seconds.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        error = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        raise DeliveryFailed(f"The process of Apprise ended with status {process.returncode}.") from None
    if error is not None:
        raise DeliveryFailed(str(error)[:500])
