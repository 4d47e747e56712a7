"""Upload of packages, and their download. Raises `CommandError`.

A package that the project has already is not sent. An upload that was cut off leaves nothing behind, and is sent again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx

from cli import requests
from cli.answers import Package
from cli.errors import OutputFailed, ServerRefused, ServerUnreachable, UsageError
from cli.files import digest_of, say_size, sentence_of
from cli.server import Server
from cli.terminal import clean, say, say_count

if TYPE_CHECKING:
    from cli.pack import Packed

KIND = "package"
READ_BYTES = 1 << 18
TRIES = 5
LONGEST_PAUSE_SECONDS = 10.0


def with_package(
    server: Server, wanted: Mapping[str, object], sent: dict[tuple[str, str | None], dict[str, object]]
) -> dict[str, object]:
    """Replace the directory `workdir` of an input by a package that is stored. sent: those of this command so far."""
    made = dict(wanted)
    directory = made.pop("workdir", None)
    if directory is None:
        return made
    project = made.get("project")
    key = (str(directory), str(project) if project is not None else None)
    if key not in sent:
        sent[key] = send(server, Path(key[0]), key[1])
    made["package"] = sent[key]
    return made


def send(server: Server, directory: Path, project: str | None) -> dict[str, object]:
    """Pack a directory and store it, unless it is; return the API's PackageInput. project: None for the default one."""
    from cli.pack import pack

    with httpx.Client(
        base_url=server.url, headers=server.headers, timeout=server.patience_seconds, trust_env=not server.is_near
    ) as client:
        packed = pack(directory, _most_bytes(client))
        with packed.archive:
            where = {"project": project} if project is not None else {}
            is_new = not _is_stored(client, packed, where)
            if is_new:
                _upload(client, packed, where)
    git = f", commit {packed.commit[:12]}{' with changes' if packed.dirty else ''}" if packed.commit else ""
    did = "uploaded" if is_new else "stored already"
    say(f"Packed {say_count(packed.files, 'file')}, {say_size(packed.size_bytes)} ({packed.digest[:12]}{git}): {did}.")
    return packed.described


def get(server: Server, simulation_id: str, paths: Sequence[str], to: Path) -> None:
    """Download the package of a simulation."""
    if paths:
        raise UsageError("--kind package: it is one archive, and has no paths.")
    package = requests.get(server, simulation_id).package
    if package is None:
        raise ServerRefused("This simulation has no package: it was submitted without --workdir.")
    download(server, package, to)


def download(server: Server, package: Package, to: Path) -> None:
    """Download the archive of a package into a directory."""
    name = f"{package.name or 'package'}-{package.digest[:12]}.tar"
    if not name.isprintable() or "/" in name or "\\" in name or name.startswith("."):
        name = f"package-{package.digest[:12]}.tar"
    place = to / name
    if not package.url.startswith("/files/"):  # else it could name another host, which would get the token
        raise ServerRefused("The server named an address of the package that is none of its own.")
    part = to / f".{package.digest[:32]}.part"
    try:
        to.mkdir(parents=True, exist_ok=True)
        with (
            httpx.Client(
                headers=server.headers, timeout=server.patience_seconds, trust_env=not server.is_near
            ) as client,
            client.stream("GET", f"{server.url}{package.url}") as response,
        ):
            if response.status_code != httpx.codes.OK:
                response.read()
                raise ServerRefused(f"The package can't be read: {sentence_of(response)}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_TRUNC
            with open(os.open(part, flags, 0o666), "wb") as output:
                for chunk in response.iter_bytes(READ_BYTES):
                    output.write(chunk)
        if digest_of(part) != package.digest:
            part.unlink()
            raise ServerUnreachable("The package did not arrive as it is stored: try again.")
        os.replace(part, place)
    except httpx.HTTPError as error:
        raise _cut_off("download", error) from error
    except OSError as error:
        raise OutputFailed(f"{place} can't be written: {error.strerror or error}") from error
    say(f"{place} ({say_size(package.size_bytes)})")


def _most_bytes(client: httpx.Client) -> int:
    response = _ask(client, "GET", "/packages", {})
    if response.status_code != httpx.codes.OK:
        raise ServerRefused(f"This server takes no packages: {sentence_of(response)}")
    try:
        return int(response.json()["mostBytes"])
    except (ValueError, LookupError, TypeError):
        raise ServerRefused("This server takes no packages: it is of an older version.") from None


def _is_stored(client: httpx.Client, packed: Packed, where: Mapping[str, str]) -> bool:
    response = _ask(client, "HEAD", f"/packages/{packed.digest}", where)
    if response.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
        raise ServerRefused(f"The server does not say whether the package is stored: HTTP {response.status_code}.")
    return response.status_code == httpx.codes.OK


def _upload(client: httpx.Client, packed: Packed, where: Mapping[str, str]) -> None:
    for left in reversed(range(TRIES)):
        try:
            response = client.put(
                f"/packages/{packed.digest}",
                params=where,
                content=_read(packed.archive),
                headers={"Content-Length": str(packed.size_bytes), "Content-Type": "application/octet-stream"},
            )
        except httpx.HTTPError as error:
            if not left:
                raise _cut_off("upload", error) from error
            pause = 1.0
        else:
            if response.status_code in (httpx.codes.OK, httpx.codes.CREATED):
                return
            is_busy = response.status_code in (
                httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS, httpx.codes.CONFLICT,
            )  # fmt: skip
            if not is_busy or not left:
                raise ServerRefused(f"The package was not stored: {sentence_of(response)}")
            pause = _pause(response)
        if _is_stored(client, packed, where):  # the answer was lost, or another client was faster
            return
        time.sleep(pause)


def _pause(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers.get("retry-after", "1")), 0.1), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return 1.0


def _read(archive: IO[bytes]) -> Iterator[bytes]:
    archive.seek(0)
    while content := archive.read(READ_BYTES):
        yield content


def _ask(client: httpx.Client, method: str, path: str, params: Mapping[str, str]) -> httpx.Response:
    try:
        return client.request(method, path, params=params)
    except httpx.HTTPError as error:
        raise ServerUnreachable(
            f"No Simulations server answers at {client.base_url}: {clean(str(error)) or type(error).__name__}."
        ) from error


def _cut_off(what: str, error: httpx.HTTPError) -> ServerUnreachable:
    return ServerUnreachable(
        f"The {what} of the package was cut off: {clean(str(error)) or type(error).__name__}. Try again."
    )
