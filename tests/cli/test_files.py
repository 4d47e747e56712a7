"""`files`: the list, and downloads that end whole, are continued, and stay in their directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import Result

from cli import files
from cli.answers import File
from cli.errors import CommandError, ServerRefused
from cli.files import place_of, say_size

Run = Callable[..., Result]


@pytest.fixture
def stored(server: Any, tmp_path: Path) -> Callable[..., None]:
    """Store files on the server: by their paths, contents, or where links lead."""
    nodes: list[dict[str, Any]] = []

    def store(kind: str = "OUTPUT", rank: int = 0, **contents: bytes | str) -> None:
        for path, content in contents.items():
            is_link = isinstance(content, str)
            url = f"/files/x/{kind}/{rank}/{path}"
            if isinstance(content, bytes):
                server.files[url] = tmp_path / f"{kind}-{rank}-{len(nodes)}"
                server.files[url].write_bytes(content)
            nodes.append({
                "kind": kind, "rank": rank, "path": path, "sizeBytes": 0 if is_link else len(content),
                "modifiedAt": None if is_link else "2026-01-01T12:00:00Z", "link": content if is_link else None,
                "digest": sha256(content).hexdigest() if isinstance(content, bytes) else None, "url": url,
            })  # fmt: skip

    def answer(given: dict[str, Any]) -> Any:
        begin = int(given["after"] or 0)
        found = [each for each in nodes if given["kind"] in (None, each["kind"])]
        page = {"hasNextPage": len(found) > begin + 2, "endCursor": str(begin + 2)}
        return {"simulation": {"files": {"nodes": found[begin : begin + 2], "pageInfo": page}}}

    server.answers["Files"] = answer
    return store


def test_files_are_listed_on_all_pages(run: Run, stored: Any) -> None:
    stored(**{"model.pt": b"12345", "log": b"1", "latest": "model.pt", "\x1b[31m": b""})
    shown = run("files", "ls", "1")
    assert shown.exit_code == 0, shown.stderr
    for word in ("model.pt", "5 bytes", "latest -> model.pt", "2026-01-01 12:00:00"):
        assert word in shown.stdout
    assert "\x1b" not in shown.stdout
    listed = json.loads(run("files", "ls", "1", "--json").stdout)
    assert [each["path"] for each in listed] == ["model.pt", "log", "latest", "\x1b[31m"]


def test_one_file_a_directory_or_all_are_downloaded(run: Run, stored: Any, server: Any, tmp_path: Path) -> None:
    stored(**{"a/one": b"1", "a/two": b"22", "b": b"333", "link": "b"})
    stored("CHECKPOINT", model=b"m")
    stored(rank=1, other=b"o")
    to = tmp_path / "to"

    def has() -> dict[str, bytes]:
        return {each.relative_to(to).as_posix(): each.read_bytes() for each in to.rglob("*") if each.is_file()}

    got = run("files", "get", "1", "a", "--to", str(to), env={"SIMULATIONS_TOKEN": "sim_secret"})
    assert (got.exit_code, has()) == (0, {"a/one": b"1", "a/two": b"22"}), got.stderr
    assert server.headers[-1]["authorization"] == "Bearer sim_secret"
    got = run("files", "get", "1", "--to", str(to))
    assert has() == {"a/one": b"1", "a/two": b"22", "b": b"333"}
    assert "is there already" in got.stderr
    assert "link is a link to b: left out" in got.stderr
    run("files", "get", "1", "--kind", "checkpoint", "--to", str(to))
    run("files", "get", "1", "other", "--rank", "1", "--to", str(to))
    assert (has()["model"], has()["other"]) == (b"m", b"o")
    refused = run("files", "get", "1", "none", "--to", str(to))
    assert refused.exit_code != 0
    assert "There is no stored output file none" in refused.stderr


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../up", "a//b", "a\\b", "a\nb", "\u202egnp", "link/x"])
def test_no_file_is_written_outside_of_the_directory(tmp_path: Path, path: str) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "link").symlink_to(tmp_path)
    with pytest.raises(ServerRefused):
        place_of(tmp_path / "to", path)


def test_an_address_of_another_host_gets_no_token(run: Run, server: Any, tmp_path: Path) -> None:
    node = {
        "kind": "OUTPUT", "rank": 0, "path": "model", "sizeBytes": 1, "modifiedAt": None, "link": None,
        "digest": "0", "url": "@evil.example/files/model",
    }  # fmt: skip
    page = {"hasNextPage": False, "endCursor": None}
    server.answers["Files"] = lambda _: {"simulation": {"files": {"nodes": [node], "pageInfo": page}}}
    refused = run("files", "get", "1", "--to", str(tmp_path), env={"SIMULATIONS_TOKEN": "sim_secret"})
    assert refused.exit_code != 0
    assert "none of its own" in refused.stderr


def test_sizes_are_said_in_units() -> None:
    assert [say_size(each) for each in (0, 1023, 1024, 5 * 2**30)] == ["0 bytes", "1023 bytes", "1.0 KiB", "5.0 GiB"]


# --- a connection that breaks ------------------------------------------------------------------------------------

HOST = SimpleNamespace(url="http://service")


class OneByOne:
    """Files by their paths; `breaks_at`: how many bytes come before the connection breaks."""

    def __init__(self, **contents: bytes) -> None:
        self.contents = contents
        self.breaks_at: int | None = None
        self.ranges: list[str | None] = []
        self.client = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        content = self.contents[request.url.path.removeprefix("/files/")]
        wanted = request.headers.get("range")
        self.ranges.append(wanted)
        begin = int(wanted[len("bytes=") : -1]) if wanted is not None else 0
        return httpx.Response(206 if wanted else 200, content=self._sent(content[begin:]))

    def _sent(self, content: bytes) -> Any:
        yield content[: self.breaks_at]
        if self.breaks_at is not None:
            raise httpx.ReadError("broken")

    def get(self, name: str, to: Path) -> None:
        content = self.contents[name]
        file = File(
            kind="OUTPUT", rank=0, path=name, size_bytes=len(content), modified_at=datetime(2026, 1, 1, tzinfo=UTC),
            digest=sha256(content).hexdigest(), link=None,
            url=f"/files/{name}",
        )  # fmt: skip
        files._download(self.client, HOST, file, to / name)  # type: ignore[arg-type]  # of a server: its address


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(files, "READ_BYTES", 1)  # httpx drops what is less when a connection breaks
    served = OneByOne()
    with served.client:
        yield served


def test_a_download_that_was_cut_off_is_continued(service: OneByOne, tmp_path: Path) -> None:
    service.contents["model"] = b"0123456789"
    service.breaks_at = 4
    with pytest.raises(CommandError, match="The same command continues it"):
        service.get("model", tmp_path)
    service.breaks_at = None
    service.get("model", tmp_path)
    assert service.ranges == [None, "bytes=4-"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model": b"0123456789"}


def test_a_file_that_is_named_like_a_part_is_none(service: OneByOne, tmp_path: Path) -> None:
    service.contents.update({"model": b"0123456789", "model.part": b"mine"})
    service.get("model.part", tmp_path)
    service.get("model", tmp_path)
    assert (tmp_path / "model").read_bytes() == b"0123456789"
    assert (tmp_path / "model.part").read_bytes() == b"mine"


def test_the_part_of_another_version_is_not_continued(service: OneByOne, tmp_path: Path) -> None:
    service.contents["model"] = b"0123456789"
    service.breaks_at = 4
    with pytest.raises(CommandError):
        service.get("model", tmp_path)
    service.contents["model"], service.breaks_at = b"abcdefghij", None
    service.get("model", tmp_path)
    assert (tmp_path / "model").read_bytes() == b"abcdefghij"


def test_a_part_that_is_damaged_is_begun_anew_by_the_next_command(service: OneByOne, tmp_path: Path) -> None:
    service.contents["model"] = b"0123456789"
    service.breaks_at = 4
    with pytest.raises(CommandError):
        service.get("model", tmp_path)
    service.breaks_at = None
    [part] = tmp_path.iterdir()
    part.write_bytes(b"####")
    with pytest.raises(CommandError, match="did not arrive as it is stored"):
        service.get("model", tmp_path)
    assert list(tmp_path.iterdir()) == []
    service.get("model", tmp_path)
    assert (tmp_path / "model").read_bytes() == b"0123456789"


def test_the_longest_name_is_written(service: OneByOne, tmp_path: Path) -> None:
    name = "n" * 255
    service.contents[name] = b"1"
    service.get(name, tmp_path)
    assert (tmp_path / name).read_bytes() == b"1"
