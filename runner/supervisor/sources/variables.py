"""Environment of the child: variables that lead its trackers to the loopback server.

A tracker that the user has set up is left alone: by a variable of the order, by a login kept in a file (W&B), or in the
program named by the command, where it sets an address or a key itself. MLFLOW_RUN_ID would end such a program, because
its own store does not know the run, and the secret would go to the user's server.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MAX_PROGRAM_BYTES = 1 << 20
OWN_MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")
OWN_WANDB = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE")


class OwnSetup(NamedTuple):
    """How a program's text shows that it sets a tracker up itself.

    assigns: a variable gets a value. calls: an address or a key is given in code, unless the text reads a variable.
    """

    assigns: re.Pattern[bytes]
    calls: re.Pattern[bytes]
    reads: bytes

    def is_in(self, texts: Sequence[bytes]) -> bool:
        """Whether one of these texts shows it."""
        reads = any(self.reads in text for text in texts)
        return any(self.assigns.search(text) or (not reads and self.calls.search(text)) for text in texts)


MLFLOW = OwnSetup(
    re.compile(rb"MLFLOW_TRACKING_URI([\"']\])?\s*=(?!=)"),
    re.compile(rb"set_tracking_uri\(|\btracking_uri\s*=\s*(?!None)"),
    b"MLFLOW_TRACKING_URI",
)
WANDB = OwnSetup(
    re.compile(rb"WANDB_(API_KEY|BASE_URL)([\"']\])?\s*=(?!=)"),
    re.compile(rb"wandb\.login\(\s*[^)\s]"),
    b"WANDB_API_KEY",
)


def mlflow(
    environment: Mapping[str, str], programs: Sequence[bytes], url: str, secret: str, run: str
) -> dict[str, str]:
    """Variables for MLflow; empty if the user has set it up."""
    if any(name in environment for name in OWN_MLFLOW) or MLFLOW.is_in(programs):
        return {}
    return {
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_RUN_ID": run,
        "MLFLOW_TRACKING_TOKEN": secret,
        "MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE": "1",  # with more, values arrive out of order
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    }


def wandb(
    environment: Mapping[str, str], programs: Sequence[bytes], directory: Path, url: str, secret: str
) -> dict[str, str]:
    """Variables for W&B. If the user has set it up, only one: its file is read, and has to be written each second.

    environment: the child's. secret: of 40 characters, as W&B's keys.
    """
    is_set_up = any(name in environment for name in OWN_WANDB) or WANDB.is_in(programs)
    if is_set_up or _is_logged_in(environment, directory):
        return {"WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "1"}
    return {
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": secret,
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",  # seconds; 15 by default
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",  # its name in version 0.18
        "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "1",  # a program may choose to be offline
    }


def without_proxy(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """Variables that except the loopback address from the user's proxy: clients ask it for 127.0.0.1 too."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in environment):
        return {}
    listed = {name: environment.get(name, "") for name in ("NO_PROXY", "no_proxy")}
    return {name: f"{value},{host}" if value else host for name, value in listed.items()}


def programs(command: Sequence[str], directory: Path) -> list[bytes]:
    """The program's text, as far as the command names it: arguments (`-c`), and files that end in `.py`."""
    texts = []
    for word in command:
        text = os.fsencode(word)
        if word.endswith(".py"):
            with contextlib.suppress(OSError, ValueError), open(directory / word, "rb") as file:
                text += b"\n" + file.read(MAX_PROGRAM_BYTES)
        texts.append(text)
    return texts


def _is_logged_in(environment: Mapping[str, str], directory: Path) -> bool:
    """Whether a login or an address is kept in netrc or in a settings file of W&B."""
    home = environment.get("HOME") or os.path.expanduser("~")
    netrc = [environment["NETRC"]] if environment.get("NETRC") else [f"{home}/.netrc", f"{home}/_netrc"]
    config = environment.get("WANDB_CONFIG_DIR") or f"{home}/.config/wandb"
    settings = [f"{config}/settings", f"{directory}/wandb/settings"]
    return any(b"wandb" in _read(path) for path in netrc) or any(
        key in _read(path) for path in settings for key in (b"base_url", b"api_key")
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PROGRAM_BYTES)
    except (OSError, ValueError):
        return b""
