"""Submissions: what they can't run after. Submissions that meet an end are in `test_release`."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import NotFound, Refusal
from db.events import Actor
from policy.dependencies import DependencyCondition
from transitions.submit import After, Submission, submit

Rows = Any  # the fixture of conftest.py
USER = Actor("user", "192.0.2.1")
ANY = DependencyCondition.ANY


async def test_unknown_repeated_and_foreign_simulations_are_refused_by_field(rows: Rows) -> None:
    first = await rows.simulation()
    other = await rows.value("INSERT INTO projects (name) VALUES ('other') RETURNING id")
    foreign = await rows.simulation(project_id=other)
    for links, kind, field in (
        ([After(simulation_id=10**9)], NotFound, "after.0.simulation"),
        ([After(simulation_id=first), After(client_key="unknown")], NotFound, "after.1.clientKey"),
        ([After(simulation_id=first), After(ANY, simulation_id=first)], Refusal, "after.1"),
        ([After(simulation_id=foreign)], Refusal, "after.0"),
        ([After(index=0)], Refusal, "after"),
        ([After(index=1)], NotFound, "after.0.index"),
    ):
        with pytest.raises(kind) as refused:
            async with rows.sessions.begin() as session:
                await submit(session, [Submission(await rows.wanted(), after=links)], USER)
        assert refused.value.field == field
    submission = Submission(await rows.wanted(project_id=other), after=[After(simulation_id=first)])
    with pytest.raises(NotFound):
        async with rows.sessions.begin() as session:
            await submit(session, [submission], USER, scope=frozenset({other}))
