"""Downloads of stored files: all bytes or a part, for viewers of the project, as nothing that a browser executes."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from db import tokens
from db.events import Actor
from db.files import PIECE_BYTES
from db.states import Role

USER = Actor("test")
World = Any  # the fixture of conftest.py

LIST = """
query Files($id: ID!, $first: Int = 100, $after: String, $kind: FileKind) {
  simulation(id: $id) {
    files(first: $first, after: $after, kind: $kind) {
      totalCount totalBytes pageInfo { hasNextPage endCursor }
      nodes { kind rank path sizeBytes modifiedAt storedAt attempt digest link url }
    }
  }
}
"""


@pytest.fixture
async def api(serve: Any, tmp_path: Path) -> Any:
    return await serve(files=str(tmp_path / "store"))


async def stored(world: World, supervisor: Any, kind: str, contents: dict[str, bytes | str], api: Any = None) -> None:
    """Store files as a supervisor does; a text is where a link leads."""
    client = (api or world.api).client
    headers = {
        "authorization": f"Bearer {supervisor.token}",
        "x-simulation-attempt": supervisor.attempt_id,
        "x-simulation-nonce": supervisor.nonce,
    }
    listed: list[list[object]] = []
    for path, content in contents.items():
        if isinstance(content, str):
            listed.append([path, 0, 0, 2, content, ""])
            continue
        pieces = [content[begin : begin + PIECE_BYTES] for begin in range(0, len(content), PIECE_BYTES)]
        digests = [sha256(each).hexdigest() for each in pieces]
        sizes = [[digest, len(each)] for digest, each in zip(digests, pieces, strict=True)]
        assert (await client.post("/files/reserve", json={"pieces": sizes}, headers=headers)).status_code == 200
        for digest, each in zip(digests, pieces, strict=True):
            assert (await client.put(f"/files/pieces/{digest}", content=each, headers=headers)).status_code == 200
        joined = "".join(digests) if len(digests) > 1 else ""
        listed.append([path, len(content), 1_700_000_000_500, 0, sha256(content).hexdigest(), joined])
    response = await client.post("/files/commit", json={"kind": kind, "files": listed}, headers=headers)
    assert response.json() == {"missing": []}


async def test_a_file_of_many_pieces_comes_whole_and_in_every_part(world: World) -> None:
    content = os.urandom(2 * PIECE_BYTES + 11)
    supervisor = await world.running()
    await stored(world, supervisor, "OUTPUT", {"big/model.bin": content, "empty": b""})
    found = await world.api.data(LIST, {"id": supervisor.simulation_id})
    model, empty = found["files"]["nodes"]
    client = world.api.client
    whole = await client.get(model["url"])
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["etag"] == f'"{model["digest"]}"' == f'"{sha256(content).hexdigest()}"'
    assert (await client.get(empty["url"])).content == b""
    head = await client.head(model["url"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))
    size = len(content)
    for wanted, begin, end in (
        ("0-0", 0, 1),
        (f"{PIECE_BYTES - 1}-{PIECE_BYTES}", PIECE_BYTES - 1, PIECE_BYTES + 1),
        (f"{PIECE_BYTES}-{2 * PIECE_BYTES - 1}", PIECE_BYTES, 2 * PIECE_BYTES),
        (f"{2 * PIECE_BYTES + 5}-", 2 * PIECE_BYTES + 5, size),
        ("-7", size - 7, size),
        (f"3-{size + 100}", 3, size),
    ):
        part = await client.get(model["url"], headers={"range": f"bytes={wanted}"})
        assert (part.status_code, part.content) == (206, content[begin:end]), wanted
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
    for wanted in (f"{size}-", "-0"):
        refused = await client.get(model["url"], headers={"range": f"bytes={wanted}"})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    for wanted in ("bytes=5-3", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"):
        assert (await client.get(empty["url"], headers={"range": wanted})).status_code in (200, 206)
        assert (await client.head(model["url"], headers={"range": wanted})).status_code in (200, 206)


async def test_parts_of_a_file_that_was_replaced_are_not_mixed(world: World) -> None:
    supervisor = await world.running()
    await stored(world, supervisor, "OUTPUT", {"log": b"one"})
    [old] = (await world.api.data(LIST, {"id": supervisor.simulation_id}))["files"]["nodes"]
    await stored(world, supervisor, "OUTPUT", {"log": b"another"})
    client, etag = world.api.client, f'"{old["digest"]}"'
    continued = await client.get(old["url"], headers={"range": "bytes=1-", "if-range": etag})
    assert (continued.status_code, continued.content) == (200, b"another")
    assert (await client.get(old["url"], headers={"if-match": etag})).status_code == 412
    newest = continued.headers["etag"]
    assert (await client.get(old["url"], headers={"if-none-match": newest})).status_code == 304


async def test_nothing_of_a_file_is_executed_by_a_browser(world: World) -> None:
    supervisor = await world.running()
    name = 'a "b"; €\u00e9.html'
    await stored(world, supervisor, "OUTPUT", {name: b"<script>", "x.svg": b"<svg>", "p.PNG": b"png", "n.js": b"1"})
    nodes = (await world.api.data(LIST, {"id": supervisor.simulation_id}))["files"]["nodes"]
    for each in nodes:
        headers = (await world.api.client.get(each["url"])).headers
        assert headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(each['path'], safe='')}"
        expected = "image/png" if each["path"] == "p.PNG" else "application/octet-stream"
        assert headers["content-type"] == expected
        assert headers["cache-control"] == "private, no-cache"


async def test_links_are_followed_inside_of_the_list_only(world: World) -> None:
    supervisor = await world.running()
    contents = {"real/model": b"1", "latest": "real/model", "deep/up": "../latest", "loop": "loop", "gone": "real/gone"}
    await stored(world, supervisor, "CHECKPOINT", contents)
    base = f"/files/{supervisor.simulation_id}/CHECKPOINT/0"
    client = world.api.client
    for path, status in (
        ("latest", 200), ("deep/up", 200), ("loop", 404), ("gone", 404), ("real", 404), ("", 404), ("..", 404),
        ("%72eal/%2e%2e/real/model", 404), ("%00", 404), ("/etc/passwd", 404),
    ):  # fmt: skip
        response = await client.get(f"{base}/{path}" if path != ".." else f"{base}/%2e%2e/x")
        assert response.status_code == status, path
    for other in (f"{base}/../1/latest", base.replace("CHECKPOINT", "OUTPUT") + "/latest", "/files/x/OUTPUT/0/latest"):
        assert (await client.get(other)).status_code == 404


async def test_pages_of_the_list_follow_one_another(world: World) -> None:
    supervisor = await world.running()
    await stored(world, supervisor, "OUTPUT", dict.fromkeys(("b", "a", "c/d"), b"1"))
    await stored(world, supervisor, "CHECKPOINT", {"z": b"22", "l": "z"})
    seen: list[str] = []
    after = None
    while True:
        found = (await world.api.data(LIST, {"id": supervisor.simulation_id, "first": 2, "after": after}))["files"]
        assert (found["totalCount"], found["totalBytes"]) == (5, 5)
        seen += [f"{each['kind']} {each['path']}" for each in found["nodes"]]
        if not found["pageInfo"]["hasNextPage"]:
            break
        after = found["pageInfo"]["endCursor"]
    assert seen == ["CHECKPOINT l", "CHECKPOINT z", "OUTPUT a", "OUTPUT b", "OUTPUT c/d"]
    only = (await world.api.data(LIST, {"id": supervisor.simulation_id, "kind": "OUTPUT"}))["files"]
    assert only["totalCount"] == 3
    assert only["nodes"][0]["modifiedAt"].startswith("2023-11-14T22:13:20.5")
    error = await world.api.error(LIST, {"id": supervisor.simulation_id, "after": "abc"})
    assert "cursor" in error["message"]


async def test_files_are_for_viewers_of_the_project_only(
    world: World, serve: Any, tmp_path: Path, sessions: Any
) -> None:
    supervisor = await world.running(project="vision")
    await stored(world, supervisor, "OUTPUT", {"model": b"secret"})
    public = await serve(files=str(tmp_path / "store"), allowed_hosts="127.0.0.1")
    [(project,)] = await world.select("SELECT id FROM projects WHERE name = 'vision'")
    async with sessions.begin() as session:
        _, of_it = await tokens.create(session, "of-it", Role.VIEWER, USER, scope=frozenset({project}))
        _, of_another = await tokens.create(session, "of-another", Role.VIEWER, USER, scope=frozenset({1}))
    url = f"/files/{supervisor.simulation_id}/OUTPUT/0/model"
    for token, status in ((None, 401), ("sim_wrong", 401), (of_another, 404), (of_it, 200), (supervisor.token, 401)):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        response = await public.client.get(url, headers=headers)
        assert response.status_code == status, response.text
