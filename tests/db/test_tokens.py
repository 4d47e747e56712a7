"""Tokens: shown once, found by their digest, judged by Postgres' clock, and ended for everybody at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import projects, tokens
from db.errors import NotFound, Refusal, Taken
from db.events import Actor
from db.models import Token
from db.notifications import Channel, listening
from db.states import Role

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]

ADA = Actor("ada", "192.0.2.1")


async def make(sessions: Sessions, name: str = "ci", role: Role = Role.OPERATOR, **given: Any) -> tuple[Token, str]:
    async with sessions.begin() as session:
        return await tokens.create(session, name, role, ADA, **given)


async def find(sessions: Sessions, text: str) -> str | None:
    async with sessions() as session:
        token = await tokens.find(session, text)
        return token.name if token is not None else None


async def revoke(sessions: Sessions, token_id: int) -> Token:
    async with sessions.begin() as session:
        return await tokens.revoke(session, token_id, ADA)


async def events(rows: Rows) -> list[tuple[str, str, str, Any]]:
    found = await rows.query("SELECT kind, actor, origin, detail FROM events WHERE object_type = 'Token' ORDER BY id")
    return [tuple(row.values()) for row in found]


async def test_a_token_lets_in_and_its_text_is_kept_nowhere(sessions: Sessions, rows: Rows) -> None:
    token, text = await make(sessions)
    assert text.startswith("sim_")
    assert len(text) == len("sim_") + 43  # 256 bits in base64
    assert await find(sessions, text) == "ci"
    assert (token.role, token.project_ids, token.created_by, token.last_used_at) == (Role.OPERATOR, None, "ada", None)
    kept = await rows.query("SELECT t::text AS row FROM tokens AS t UNION ALL SELECT e::text FROM events AS e")
    assert all(text[4:] not in each["row"] for each in kept)


async def test_two_tokens_share_nothing(sessions: Sessions) -> None:
    (_, one), (_, other) = await make(sessions, "one"), await make(sessions, "other")
    assert one != other
    assert (await find(sessions, one), await find(sessions, other)) == ("one", "other")


@pytest.mark.parametrize("text", ["", "sim_", "sim_unknown", "\udcff", "x" * 10_000, "sim_\0"])
async def test_an_unknown_text_is_no_token(sessions: Sessions, text: str) -> None:
    await make(sessions)
    assert await find(sessions, text) is None


async def test_an_expired_token_is_rejected_by_postgres_clock(sessions: Sessions, rows: Rows) -> None:
    token, text = await make(sessions, lifetime=timedelta(days=30))
    assert token.expires_at is not None
    assert timedelta(days=29) < token.expires_at - datetime.now(UTC) < timedelta(days=31)
    assert await find(sessions, text) == "ci"
    await rows.query("UPDATE tokens SET expires_at = now()")
    assert await find(sessions, text) is None


async def test_a_revoked_token_is_rejected_and_revoking_it_again_changes_nothing(
    sessions: Sessions, rows: Rows
) -> None:
    token, text = await make(sessions)
    _, other = await make(sessions, "other")
    first = await revoke(sessions, token.id)
    assert await find(sessions, text) is None
    assert await find(sessions, other) == "other"
    assert (await revoke(sessions, token.id)).revoked_at == first.revoked_at
    told = {"name": "ci", "role": "OPERATOR", "projects": None, "expiresAt": None}
    assert await events(rows) == [
        ("CREATED", "ada", "192.0.2.1", told),
        ("CREATED", "ada", "192.0.2.1", {**told, "name": "other"}),
        ("REVOKED", "ada", "192.0.2.1", {"name": "ci"}),
    ]
    with pytest.raises(NotFound):
        await revoke(sessions, 999)


async def test_a_revocation_is_told_to_every_process(sessions: Sessions, database_url: str) -> None:
    token, _ = await make(sessions)
    heard: asyncio.Queue[tuple[Channel, frozenset[int] | None]] = asyncio.Queue()
    async with listening(database_url, [Channel.TOKENS], lambda *hint: heard.put_nowait(hint)), asyncio.timeout(60):
        assert await heard.get() == (Channel.TOKENS, None)  # it listens: look at all
        await revoke(sessions, token.id)
        assert await heard.get() == (Channel.TOKENS, frozenset({token.id}))


async def test_what_was_opened_can_ask_whether_its_token_still_lets_in(sessions: Sessions, rows: Rows) -> None:
    ids = [(await make(sessions, name))[0].id for name in ("good", "expired", "revoked")]
    await rows.query("UPDATE tokens SET expires_at = now() WHERE name = 'expired'")
    await revoke(sessions, ids[2])
    async with sessions() as session:
        assert await tokens.usable(session, [*ids, 999]) == {ids[0]}


async def test_a_name_is_one_token_until_it_is_revoked(sessions: Sessions) -> None:
    token, _ = await make(sessions)
    with pytest.raises(Taken, match="called 'ci'") as refused:
        await make(sessions)
    assert refused.value.field == "name"
    await revoke(sessions, token.id)
    again, text = await make(sessions)
    assert again.id != token.id
    assert await find(sessions, text) == "ci"
    async with sessions() as session:
        found = await tokens.find_named(session, "ci")
        assert found is not None
        assert found.id == again.id
        assert await tokens.find_named(session, "unknown") is None


@pytest.mark.parametrize("name", ["scheduler", "supervisor", "anonymous", "command line", "root (unverified)"])
async def test_a_token_can_not_speak_in_the_name_of_the_house(sessions: Sessions, name: str) -> None:
    with pytest.raises(Taken, match="choose another name"):
        await make(sessions, name)


async def test_a_token_is_for_projects_that_are_there(sessions: Sessions, rows: Rows) -> None:
    async with sessions.begin() as session:
        mine = (await projects.named(session, "mine", ADA)).id
    token, _ = await make(sessions, scope=frozenset({mine, 1}))
    assert token.project_ids == [1, mine]
    with pytest.raises(NotFound, match="no such project"):
        await make(sessions, "other", scope=frozenset({mine, 999}))
    with pytest.raises(Refusal, match="at least one project"):
        await make(sessions, "other", scope=frozenset())
    assert await rows.value("SELECT count(*) FROM tokens") == 1


async def test_the_last_use_is_noted_at_most_once_a_minute(sessions: Sessions, rows: Rows) -> None:
    token, _ = await make(sessions)

    async def touch() -> bool:
        async with sessions.begin() as session:
            return await tokens.touch(session, token.id)

    assert await touch()
    assert await rows.value("SELECT last_used_at > now() - interval '1 minute' FROM tokens")
    assert not await touch()
    await rows.query("UPDATE tokens SET last_used_at = last_used_at - interval '61 seconds'")
    assert await touch()
    assert not await touch()


async def test_noting_a_use_waits_for_no_lock(sessions: Sessions, rows: Rows) -> None:
    token, _ = await make(sessions)
    async with sessions.begin() as first, sessions.begin() as second, asyncio.timeout(60):
        assert await tokens.touch(first, token.id)
        assert not await tokens.touch(second, token.id)


async def test_pages_show_every_token_newest_first(sessions: Sessions) -> None:
    names = [f"token {number}" for number in range(5)]
    for name in names:
        token, _ = await make(sessions, name)
    await revoke(sessions, token.id)
    shown: list[str] = []
    after = None
    async with sessions() as session:
        for _ in range(3):
            page = await tokens.page_all(session, first=2, after=after)
            shown += [row.name for row in page.rows]
            after = page.cursors[-1]
    assert not page.has_next
    assert shown == names[::-1]


async def test_any_exists_counts_usable_tokens_only(sessions: Sessions, rows: Rows) -> None:
    async def any_exists() -> bool:
        async with sessions() as session:
            return await tokens.any_exists(session)

    assert not await any_exists()
    token, _ = await make(sessions)
    assert await any_exists()
    await rows.query("UPDATE tokens SET expires_at = now()")
    assert not await any_exists()
    await rows.query("UPDATE tokens SET expires_at = NULL")
    await revoke(sessions, token.id)
    assert not await any_exists()


async def test_a_token_is_found_by_the_index_of_digests(sessions: Sessions, rows: Rows) -> None:
    await rows.query(
        "INSERT INTO tokens (name, digest, role, created_by) "
        "SELECT 't' || n, sha256(n::text::bytea), 'VIEWER', 'x' FROM generate_series(1, 2000) AS n"
    )
    await rows.query("ANALYZE tokens")
    plan = await rows.query("EXPLAIN SELECT * FROM tokens WHERE digest = sha256('7')")
    assert "uq_tokens_digest" in str(plan)


async def test_a_project_is_made_once_and_the_history_says_by_whom(sessions: Sessions, rows: Rows) -> None:
    async with sessions.begin() as session:
        made = await projects.named(session, "vision", ADA)
        assert (await projects.named(session, "vision", Actor("other"))).id == made.id
        assert (await projects.named(session, "vision", ADA, scope=frozenset({made.id}))).id == made.id
    found = await rows.query("SELECT kind, actor, origin, object_id, detail FROM events WHERE object_type = 'Project'")
    assert [tuple(row.values()) for row in found] == [
        ("CREATED", "ada", "192.0.2.1", made.id, {"name": "vision"}),
    ]


@pytest.mark.parametrize("name", ["default", "missing"])
async def test_a_project_out_of_scope_is_not_there_and_none_is_made(sessions: Sessions, rows: Rows, name: str) -> None:
    async with sessions.begin() as session:
        with pytest.raises(NotFound, match=r"^There is no such project, or it is none of yours\.$"):
            await projects.named(session, name, ADA, scope=frozenset({999}))
    assert await rows.value("SELECT count(*) FROM projects") == 1
