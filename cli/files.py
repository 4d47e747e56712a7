"""`simulations files`: a list of stored files, and their download.

Names come from the server, and before it from a simulation: a file is written below the directory that was asked for,
or not at all. It is written beside its place and renamed when it is there as a whole and its digest is right; what a
download that was cut off has left is continued. Links are listed and not made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath

import httpx

from cli import requests
from cli.answers import File
from cli.errors import OutputFailed, ServerRefused, ServerUnreachable, UsageError
from cli.server import Server
from cli.tables import Column, print_table
from cli.terminal import clean, print_json, say, stdout

READ_BYTES = 1 << 20
KINDS = ("output", "checkpoint")  # and package: cli/packages
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def print_files(server: Server, simulation_id: str, *, as_json: bool) -> None:
    """Print the files of a simulation. Raises `CommandError`."""
    found = list(requests.files(server, simulation_id))
    if as_json:
        print_json([each.as_json() for each in found])
        return
    if not found:
        say("No files are stored. What it writes to $SIMULATION_OUTPUT_DIR and $SIMULATION_CHECKPOINT_DIR is.")
        return
    has_ranks = any(each.rank for each in found)
    columns = [
        Column("KIND"),
        Column("PATH", is_key=True, folds=True),
        Column("SIZE"),
        Column("MODIFIED", from_width=60),
    ]
    columns += [Column("RANK")] if has_ranks else []
    columns += [Column("SHA-256", from_width=120)]
    rows = []
    for each in found:
        name = clean(each.path) + (f" -> {clean(each.link)}" if each.link is not None else "")
        modified = f"{each.modified_at:%Y-%m-%d %H:%M:%S}" if each.modified_at is not None else ""
        size = say_size(each.size_bytes) if each.link is None else ""
        ranked = [str(each.rank)] if has_ranks else []
        rows.append([each.kind.lower(), name, size, modified, *ranked, clean(each.digest or "")[:16]])
    print_table(stdout(), columns, rows)


def download(server: Server, simulation_id: str, paths: Sequence[str], *, to: Path, kind: str, rank: int) -> None:
    """Download files, or directories with all below them; all of a kind without paths. Raises `CommandError`."""
    if kind.lower() not in KINDS:
        raise UsageError(f"--kind: expected {' or '.join(KINDS)}, got {clean(kind)}")
    found = [each for each in requests.files(server, simulation_id, kind=kind.upper()) if each.rank == rank]
    wanted = [each for each in found if not paths or any(is_below(each.path, path) for path in paths)]
    for path in paths:
        if not any(is_below(each.path, path) for each in wanted):
            raise ServerRefused(
                f"There is no stored {kind.lower()} file {clean(path)}. List them: simulations files ls"
            )
    with httpx.Client(headers=server.headers, timeout=server.patience_seconds, trust_env=not server.is_near) as client:
        for each in wanted:
            if each.link is not None:
                say(f"{clean(each.path)} is a link to {clean(each.link)}: left out")
            else:
                _download(client, server, each, place_of(to, each.path))
    if not wanted:
        say(f"No {kind.lower()} files are stored.")


def is_below(path: str, directory: str) -> bool:
    """Whether a path is this one, or below it."""
    parts = PurePosixPath(directory).parts
    return PurePosixPath(path).parts[: len(parts)] == parts


def place_of(directory: Path, path: str) -> Path:
    """Return where a file is written. Raises `ServerRefused` for a name that leads out of the directory."""
    parts = path.split("/")
    if not path.isprintable() or any(part in ("", ".", "..") for part in parts) or "\\" in path:
        raise ServerRefused(f"The server named a file {clean(path)!r}, which can't be written: nothing was.")
    place = directory.joinpath(*parts)
    if not place.parent.resolve().is_relative_to(directory.resolve()):
        raise ServerRefused(f"{clean(path)} would be written outside of {directory}, through a link in it.")
    return place


def _download(client: httpx.Client, server: Server, file: File, place: Path) -> None:
    try:
        if place.is_file() and not place.is_symlink() and digest_of(place) == file.digest:
            say(f"{place} is there already")
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(_name_of_part(file))
        if not file.url.startswith("/files/"):  # else it could name another host, which would get the token
            raise ServerRefused(f"The server named an address of {clean(file.path)} that is none of its own.")
        _fetch(client, f"{server.url}{file.url}", part, file)
        if digest_of(part) != file.digest:
            part.unlink()
            raise ServerUnreachable(f"{clean(file.path)} did not arrive as it is stored: try again.")
        os.replace(part, place)
    except OSError as error:
        raise OutputFailed(f"{place} can't be written: {error.strerror or error}") from error
    say(f"{place} ({say_size(file.size_bytes)})")


def _name_of_part(file: File) -> str:
    """Return a name that no other file, and no other version of this one, has; the longest names have 255 bytes."""
    return f".{sha256(f'{file.path} {file.digest}'.encode()).hexdigest()[:32]}.part"


def _fetch(client: httpx.Client, url: str, part: Path, file: File) -> None:
    begin = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
    headers = {"Range": f"bytes={begin}-", "If-Range": f'"{file.digest}"'} if 0 < begin < file.size_bytes else {}
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code not in (200, 206):
                response.read()
                raise ServerRefused(f"{clean(file.path)} can't be read: {sentence_of(response)}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
            flags |= os.O_APPEND if response.status_code == 206 else os.O_TRUNC
            with open(os.open(part, flags, 0o666), "wb") as output:
                for chunk in response.iter_bytes(READ_BYTES):
                    output.write(chunk)
    except httpx.HTTPError as error:
        raise ServerUnreachable(
            f"The download of {clean(file.path)} was cut off: {clean(str(error)) or type(error).__name__}. The same "
            "command continues it."
        ) from error


def sentence_of(response: httpx.Response) -> str:
    """Return the sentence of a refusal."""
    try:
        return clean(str(response.json()["errors"][0]["message"]))
    except (ValueError, LookupError, TypeError):
        return f"HTTP {response.status_code}"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    whole = sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            whole.update(chunk)
    return whole.hexdigest()


def say_size(size: int) -> str:
    """Format a number of bytes."""
    value = float(size)
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(size)
