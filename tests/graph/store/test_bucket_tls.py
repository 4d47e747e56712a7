"""A bucket behind a private authority, on a real S3 server with TLS: service and machines trust the named file alone.

Machines do not have the file: the certificates travel with the signed URLs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bucket import Server
from member import Member

from graph.store.base import StoreUnavailable
from graph.store.s3 import S3
from runner.supervisor.files import saver
from settings import Bucket

World = Any  # the fixture of conftest.py
apart = asyncio.to_thread  # the API is served by the test's own loop


@pytest.fixture
def authority(bucket_server: Server, tmp_path: Path) -> Path:
    """A copy of the authority's file, with a key in it, as some have it."""
    copy = tmp_path / "authority.pem"
    copy.write_text(bucket_server.authority.read_text() + (bucket_server.directory / "authority.key").read_text())
    return copy


@pytest.fixture
def tls_url(bucket_server: Server, bucket_url: str, authority: Path) -> str:
    return f"{bucket_url.replace(bucket_server.url, bucket_server.https)}&ca={authority}"


@pytest.fixture
async def api(serve: Any, tls_url: str) -> Any:
    return await serve(files=tls_url)


async def test_files_go_to_a_bucket_behind_a_private_authority_and_to_the_next_machine(
    world: World, bucket_server: Server, tmp_path: Path
) -> None:
    first = Member(await world.running(), tmp_path / "a", world.api.address)
    (first.checkpoints / "model").write_bytes(b"model")
    await first.saves()
    assert first.notices == {}
    answer = await apart(first.store._ask, "offers", {"digests": []})
    assert "authorities" not in answer, "only with URLs"
    await world.lose(first.supervisor, attempt=1)
    second = Member(await world.running(first.supervisor.simulation_id), tmp_path / "b", world.api.address)
    await second.brings(2)
    assert second.holds() == {"model": b"model"}
    assert second.store._authorities == bucket_server.authority.read_text().strip(), "and no key"
    for each in (first, second):
        each.store.close()


async def test_a_machine_trusts_the_authority_that_came_with_its_urls_and_no_other(
    world: World, bucket_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "FIRST_PAUSE_SECONDS", 0.01)
    (tmp_path / "stranger").mkdir()
    stranger = Server(bucket_server.program, tmp_path / "stranger")
    stranger.certify()
    why: list[str] = []
    fail, authorities = saver.Saver._fail, S3.authorities

    def note(this: saver.Saver, message: str) -> None:
        why.append(message)
        fail(this, message)

    monkeypatch.setattr(saver.Saver, "_fail", note)
    monkeypatch.setattr(S3, "authorities", lambda this: authorities(this) if why else stranger.authority.read_text())
    member = Member(await world.running(), tmp_path / "a", world.api.address)
    (member.checkpoints / "model").write_bytes(b"model")
    await member.saves()
    member.store.close()
    assert [each.partition(":")[0] for each in why] == ["the certificate of 127.0.0.1"]
    assert "Name its authority's file as ca in SIMULATIONS_FILES." in why[0]
    assert member.notices == {}, "the next URLs came with the right one"


async def test_the_service_refuses_a_bucket_of_another_authority(
    bucket_server: Server, bucket_url: str, tls_url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await S3(Bucket.parse(tls_url)).sizes([1]) == {}
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await S3(Bucket.parse(tls_url.partition("&ca=")[0])).sizes([1])
    authority.write_text("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
    for act in (S3(Bucket.parse(tls_url)).authorities, lambda: S3(Bucket.parse(tls_url)).offer_get(1)):
        with pytest.raises(StoreUnavailable, match="can't be used"):
            act()
    authority.unlink()
    with pytest.raises(StoreUnavailable, match="No such file"):
        S3(Bucket.parse(tls_url)).authorities()
