"""Process that sends one notification by Apprise: `python -m scheduler.apprise_process`, started by `alert_apprise`.

It may connect only to public and allowed addresses, and starts no programs: an audit hook of the interpreter refuses
anything else, at the connection itself, so that no other record of a name and no redirect leads around it. (C code
that opens sockets by itself is not seen by the hook; the services of Apprise use Python's sockets.)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import apprise

from policy.addresses import Network, refusal

PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"})


def main() -> None:
    """Send the notification that standard input describes, and write the result to standard output."""
    order = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    refusals = restrict([ip_network(each) for each in order["allowed"]])
    error = notify(order["url"], order["title"], order["body"])
    if error is not None and refusals:
        error = f"{refusals[0]} SIMULATIONS_ALERT_PRIVATE_NETWORKS lists the networks that are allowed."
    json.dump({"error": error}, answer)
    answer.close()
    os._exit(0)  # a service may have left threads


def restrict(allowed: Sequence[Network]) -> list[str]:
    """Refuse connections to other addresses than public and allowed ones, and programs, for the rest of this process.

    Returns the list to which the reasons of refusals are added.
    """
    refusals: list[str] = []

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        why = None
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            if isinstance(address, tuple):
                why = refusal(str(address[0]), allowed)
            elif address is not None:
                why = "Unix sockets are not allowed."
        elif event in PROGRAMS:
            why = "This service starts a program, which is not allowed."
        if why is not None:
            refusals.append(why)
            raise PermissionError(why)

    sys.addaudithook(check)
    return refusals


def notify(url: str, title: str, body: str) -> str | None:
    """Send a notification; return why it failed, without the URL, or None."""
    asset = apprise.AppriseAsset(app_id="Simulations", storage_mode="memory")
    sender = apprise.Apprise(asset=asset)
    if not sender.add(url):
        return "Apprise does not accept the URL of this target."
    service = getattr(sender[0], "service_name", None) or "The service"
    if not sender.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT):
        return f"{service} did not accept the notification."
    return None


if __name__ == "__main__":
    main()
