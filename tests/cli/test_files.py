"""Downloads of `simulations files get`: parts that are continued, and names of every length."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cli import files
from cli.answers import File
from cli.errors import CommandError

HOST = SimpleNamespace(url="http://service")


class Service:
    """Files by their paths; `breaks_at`: how many bytes come before the connection breaks."""

    def __init__(self, **contents: bytes) -> None:
        self.contents = contents
        self.breaks_at: int | None = None
        self.ranges: list[str | None] = []
        self.client = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        content = self.contents[request.url.path[1:]]
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
            url=f"/{name}",
        )  # fmt: skip
        files._download(self.client, HOST, file, to / name)  # type: ignore[arg-type]  # of a server: its address


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(files, "READ_BYTES", 1)  # httpx drops what is less when a connection breaks
    served = Service()
    with served.client:
        yield served


def test_a_download_that_was_cut_off_is_continued(service: Service, tmp_path: Path) -> None:
    service.contents["model"] = b"0123456789"
    service.breaks_at = 4
    with pytest.raises(CommandError, match="The same command continues it"):
        service.get("model", tmp_path)
    service.breaks_at = None
    service.get("model", tmp_path)
    assert service.ranges == [None, "bytes=4-"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model": b"0123456789"}


def test_a_file_that_is_named_like_a_part_is_none(service: Service, tmp_path: Path) -> None:
    service.contents.update({"model": b"0123456789", "model.part": b"mine"})
    service.get("model.part", tmp_path)
    service.get("model", tmp_path)
    assert (tmp_path / "model").read_bytes() == b"0123456789"
    assert (tmp_path / "model.part").read_bytes() == b"mine"


def test_the_part_of_another_version_is_not_continued(service: Service, tmp_path: Path) -> None:
    service.contents["model"] = b"0123456789"
    service.breaks_at = 4
    with pytest.raises(CommandError):
        service.get("model", tmp_path)
    service.contents["model"], service.breaks_at = b"abcdefghij", None
    service.get("model", tmp_path)
    assert (tmp_path / "model").read_bytes() == b"abcdefghij"


def test_the_longest_name_is_written(service: Service, tmp_path: Path) -> None:
    name = "n" * 255
    service.contents[name] = b"1"
    service.get(name, tmp_path)
    assert (tmp_path / name).read_bytes() == b"1"
