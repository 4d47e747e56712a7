"""Alerts: outbox, messages, signed webhooks, retries, addresses, Apprise."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from live import free_port
from receiver import Receiver, receiving
from sqlalchemy import select, text
from statements import sent_by

from db import alert_deliveries, alert_targets, events, public_ids, simulations
from db.alert_targets import Transport
from db.connection import driver_of
from db.events import Actor
from db.models import AlertDelivery, AlertTarget, Event
from db.states import Reason
from policy.alerts import AlertKind
from scheduler import alert_apprise
from scheduler.alert_webhooks import DeliveryFailed, Webhooks
from scheduler.alerts import Alerts, AlertSummary
from scheduler.planner import Planner
from settings import Settings
from transitions.settle import Ending, end

World = Any  # the fixture of conftest.py
USER = Actor("user")
OPEN = Settings(alert_private_networks=("127.0.0.0/8",), public_url="https://simulations.example.org")  # type: ignore[call-arg]  # pydantic's other names


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
async def alerts(world: World) -> AsyncIterator[Alerts]:
    alerts = Alerts(world.sessions, OPEN, chance=lambda: 0.5)
    yield alerts
    await alerts.close()


async def target(world: World, url: str, name: str = "ops", **given: Any) -> AlertTarget:
    wanted = {"transport": Transport.WEBHOOK, "kinds": tuple(AlertKind), "is_default": True, **given}
    async with world.sessions.begin() as session:
        return await alert_targets.create(session, alert_targets.Wanted(name=name, url=url, **wanted), USER)


async def settled(alerts: Alerts) -> None:
    """Do rounds until nothing is written and nothing is due."""
    while True:
        summary = await alerts.run_once()
        await alerts.idle()
        if not summary.written and not summary.started:
            return


async def cancelled(world: World, **given: Any) -> int:
    simulation_id: int = await world.simulation(**given)
    await world.cancel(simulation_id)
    return simulation_id


async def ended(world: World, reason: Reason, detail: str | None = None, *, again: bool = False, **given: Any) -> int:
    """A simulation whose attempt ended for this reason."""
    simulation_id: int = await world.simulation(**given)
    await world.machine(price_per_hour=Decimal(2))
    assert (await Planner(world.sessions, world.settings).tick()).assigned == 1
    await world.hello(simulation_id)
    async with world.sessions.begin() as session:
        after = timedelta(minutes=1) if again else None
        assert await end(session, simulation_id, 1, Ending(reason, detail), USER, retry_after=after)
    return simulation_id


async def deliveries(world: World) -> Sequence[AlertDelivery]:
    async with world.sessions() as session:
        return (await session.scalars(select(AlertDelivery).order_by(AlertDelivery.id))).all()


async def later(world: World) -> None:
    """The pauses, and the claims of senders that died, have passed."""
    await world.execute("UPDATE alert_deliveries SET next_at = now()")


async def test_a_receiver_verifies_and_reads_what_happened(world: World, alerts: Alerts, receiver: Receiver) -> None:
    ops = await target(world, receiver.url)
    simulation_id = await ended(world, Reason.NON_FINITE_METRIC, "val/loss was NaN at step 2.", name="digits")
    await settled(alerts)

    [received] = receiver.received
    message = received.verified(str(ops.secret))
    assert message["type"] == "simulation.diverged"
    public_id = public_ids.encode("Simulation", simulation_id)
    data = message["data"]
    assert data["simulation"] == {
        "id": public_id, "number": simulation_id, "name": "digits", "state": "FAILED", "reason": "NON_FINITE_METRIC",
        "reasonDetail": "val/loss was NaN at step 2.", "attempt": 1,
    }  # fmt: skip
    assert data["sentence"] == f"digits (#{simulation_id}) in default diverged. val/loss was NaN at step 2."
    assert data["project"]["name"] == "default"
    assert data["cost"]["currency"] == "USD"
    assert data["link"].startswith("https://simulations.example.org/simulations/")
    assert received.headers["content-type"] == "application/json"
    [delivery] = await deliveries(world)
    assert received.id == f"msg_{delivery.message_id}"
    assert (delivery.attempts, delivery.error) == (1, None)
    assert delivery.delivered_at is not None
    await settled(alerts)
    assert len(receiver.received) == 1, "it is sent once"


async def test_the_objective_stands_in_the_text_and_in_the_message(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    ops = await target(world, receiver.url)
    simulation_id: int = await world.simulation(name="digits")
    await world.execute(
        "INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, "
        "min_value, max_step, max_value) SELECT id, 1, metric, 2, 1, 2, 0.5, 1, 0.25, 2, 0.5 FROM simulations, "
        "unnest('{train/loss,val/loss,epoch}'::text[]) AS metric"
    )
    await world.cancel(simulation_id)
    await settled(alerts)
    [received] = receiver.received
    assert received.verified(str(ops.secret))["data"]["objective"] == {
        "metric": "val/loss", "value": 0.5, "bestValue": 0.25, "bestStep": 1,
    }  # fmt: skip
    [delivery] = await deliveries(world)
    assert "val/loss 0.5, best 0.25 at step 1." in str(delivery.body)


async def test_what_arrives_once_the_receiver_is_up_again_has_the_same_id(world: World, alerts: Alerts) -> None:
    with receiving(free_port()) as first:  # a port that nothing else takes meanwhile
        ops = await target(world, first.url)
        first.status = 503
        await cancelled(world)
        await settled(alerts)
    [delivery] = await deliveries(world)
    assert (delivery.attempts, delivery.error) == (1, "The receiver answered with HTTP status 503.")
    await later(world)
    await settled(alerts)
    [delivery] = await deliveries(world)
    assert (delivery.attempts, delivery.error) == (2, "No connection could be made.")
    async with world.sessions() as session:
        assert (await alert_targets.get(session, ops.id)).last_error == "No connection could be made."
    with receiving(first.port) as second:
        await settled(alerts)
        assert second.received == [], "its pause has not passed"
        await later(world)
        await settled(alerts)
        assert second.ids == first.ids
        assert second.received[0].body == first.received[0].body
        second.received[0].verified(str(ops.secret))
    async with world.sessions() as session:
        shown = await alert_targets.get(session, ops.id)
    assert shown.last_error is None
    assert shown.delivered_at is not None


async def test_pauses_are_those_of_the_policy(world: World, alerts: Alerts, receiver: Receiver) -> None:
    receiver.status = 500
    await target(world, receiver.url)
    await cancelled(world)
    for expected in (5, 10, 20):
        async with world.sessions() as session:
            before = (await session.scalars(text("SELECT now()"))).one()
        await settled(alerts)
        async with world.sessions() as session:
            next_at, after = (await session.execute(text("SELECT next_at, now() FROM alert_deliveries"))).one()
        # It failed between the two times.
        assert (next_at - before).total_seconds() > expected / 2
        assert (next_at - after).total_seconds() <= expected
        await later(world)
    await world.execute("UPDATE alert_deliveries SET created_at = now() - interval '3 days'")
    await settled(alerts)
    [delivery] = await deliveries(world)
    assert delivery.given_up_at is not None
    await later(world)
    await settled(alerts)
    assert len(receiver.received) == 4


async def test_an_unexpected_error_is_a_failed_delivery_with_pauses_and_an_end(
    world: World, alerts: Alerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(*_: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(Webhooks, "send", send)
    await target(world, "http://127.0.0.1:9/")
    await cancelled(world)
    await settled(alerts)
    [failed] = await deliveries(world)
    assert (failed.attempts, failed.given_up_at) == (1, None)
    assert failed.error == "Sending it failed with UnicodeError, see the scheduler's log."
    await world.execute("UPDATE alert_deliveries SET next_at = now(), created_at = now() - interval '3 days'")
    await settled(alerts)
    [given_up] = await deliveries(world)
    assert given_up.given_up_at is not None


async def test_a_receiver_that_is_gone_hears_no_more_of_a_message(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    receiver.status = 410
    await target(world, receiver.url)
    await cancelled(world)
    await settled(alerts)
    [delivery] = await deliveries(world)
    assert delivery.given_up_at is not None
    assert "410 Gone" in str(delivery.error)


async def test_a_redirect_is_not_followed(world: World, alerts: Alerts, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.status, receiver.headers = 307, {"location": elsewhere.url}
        await target(world, receiver.url)
        await cancelled(world)
        await settled(alerts)
        assert elsewhere.received == []
    [delivery] = await deliveries(world)
    assert "redirects are not followed" in str(delivery.error)


async def test_a_claim_that_ran_out_is_sent_again_with_the_same_id(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    receiver.hold = threading.Event()
    await target(world, receiver.url)
    await cancelled(world)
    await alerts.run_once()
    await asyncio.to_thread(_until, receiver, 1)
    await alerts.close()  # between sending and noting
    other = Alerts(world.sessions, OPEN)
    await other.run_once()
    await other.idle()
    assert len(receiver.received) == 1, "it is claimed"
    receiver.hold.set()
    await later(world)
    await settled(other)
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


def _until(receiver: Receiver, times: int) -> None:
    waiting = threading.Event()
    while not receiver.is_reached(times)():
        waiting.wait(0.02)


async def test_a_slow_receiver_holds_up_only_itself(world: World, alerts: Alerts, receiver: Receiver) -> None:
    with receiving() as slow:
        slow.hold = threading.Event()
        await target(world, slow.url, "slow")
        await target(world, receiver.url, "quick")
        for _ in range(3):
            await cancelled(world)
            await alerts.run_once()
        await asyncio.to_thread(_until, receiver, 3)
        await asyncio.to_thread(_until, slow, 1)
        assert len(slow.received) == 1, "one at a time"
        slow.hold.set()
        await settled(alerts)
        assert len(set(slow.ids)) == 3


async def test_two_leaders_write_and_send_each_message_once(world: World, receiver: Receiver) -> None:
    await target(world, receiver.url)
    for _ in range(10):
        await cancelled(world)
    both = [Alerts(world.sessions, OPEN), Alerts(world.sessions, OPEN)]
    await asyncio.gather(*(each.run_once() for each in both))
    await asyncio.gather(*(settled(each) for each in both))
    await asyncio.gather(*(settled(each) for each in both))
    assert len(receiver.ids) == len(set(receiver.ids)) == 10


async def test_an_event_whose_transaction_commits_late_is_not_missed(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    await target(world, receiver.url)
    simulation_id = await world.simulation()
    late = world.sessions()
    await late.begin()
    await events.record(late, "FAILED", USER, "Simulation", simulation_id, project_id=1, detail={})
    await cancelled(world)
    await settled(alerts)
    assert len(receiver.received) == 1
    await late.commit()
    await late.close()
    await settled(alerts)
    assert len(receiver.received) == 2
    async with world.sessions() as session:
        marks = (await session.scalars(select(Event.alert_pending))).all()
    assert not any(marks)


async def test_a_round_with_nothing_to_do_is_one_statement(world: World, alerts: Alerts, receiver: Receiver) -> None:
    await alerts.run_once()  # which looks for long waits and old deliveries, once in a while
    async with sent_by(world.sessions) as sent:
        assert await alerts.run_once() == AlertSummary()
    assert len(sent) == 1, sent
    await target(world, receiver.url)
    async with sent_by(world.sessions) as sent:
        assert await alerts.run_once() == AlertSummary()
    assert len(sent) == 1, sent


async def test_without_targets_marks_are_taken_off_and_nothing_is_sent(world: World, alerts: Alerts) -> None:
    await cancelled(world)
    assert (await alerts.run_once()).events == 1
    assert (await alerts.run_once()).events == 0
    assert await deliveries(world) == []


async def test_a_simulation_that_was_deleted_before_still_alerts_whom_it_named(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    named = await target(world, receiver.url, is_default=False)
    simulation_id = await cancelled(world, name="gone", alert_target_ids=(named.id,))
    async with world.sessions.begin() as session:
        await simulations.delete_ended(session, simulation_id, USER)
    await settled(alerts)
    [received] = receiver.received
    assert json.loads(received.body)["data"]["simulation"]["name"] == "gone"


async def test_what_a_simulation_names_replaces_the_defaults(world: World, alerts: Alerts, receiver: Receiver) -> None:
    default = await target(world, receiver.url, "default")
    other = await target(world, receiver.url, "other", is_default=False)
    of_none = await cancelled(world, alert_target_ids=())
    of_other = await cancelled(world, alert_target_ids=(other.id,))
    of_default = await cancelled(world)
    await settled(alerts)
    sent = {(each.simulation_id, each.target_id) for each in await deliveries(world)}
    assert sent == {(of_other, other.id), (of_default, default.id)}
    assert of_none not in {each for each, _ in sent}


async def test_a_lost_machine_alerts_although_the_simulation_is_retried(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    await target(world, receiver.url)
    await ended(world, Reason.MACHINE_LOST, again=True)
    await settled(alerts)
    [received] = receiver.received
    message = json.loads(received.body)
    assert message["type"] == "simulation.machine_lost"
    assert message["data"]["simulation"]["state"] == "QUEUED"


async def test_a_preemption_is_no_alert(world: World, alerts: Alerts, receiver: Receiver) -> None:
    await target(world, receiver.url)
    await ended(world, Reason.PREEMPTED, again=True)
    await settled(alerts)
    assert receiver.received == []


async def test_a_budget_alerts_the_defaults_of_its_project_at_eighty_percent(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    await target(world, receiver.url, project_ids=(1,))
    await target(world, receiver.url, "by name only", is_default=False)
    for project_id, percent in ((1, 50), (1, 80), (None, 80)):
        facts = {
            "percent": percent, "spent": "400.5", "amount": "500", "currency": "USD", "period": "MONTH",
            "periodBegin": "2026-11-01T00:00:00+00:00",
        }  # fmt: skip
        async with world.sessions.begin() as session:
            await events.record(session, "BUDGET_WARNING", USER, "Budget", 7, project_id=project_id, detail=facts)
    await settled(alerts)
    [received] = receiver.received
    message = json.loads(received.body)
    assert message["type"] == "budget.warning"
    assert message["data"]["budget"]["percent"] == 80
    assert message["data"]["sentence"] == "80 percent of the budget of default is spent: 400.50 USD of 500.00 USD."


# --- long waits ------------------------------------------------------------------------------------------------


async def waits(world: World, hours: float, **given: Any) -> int:
    simulation_id: int = await world.simulation(cpus=64.0, **given)
    await Planner(world.sessions, world.settings).tick()
    await world.execute(
        "UPDATE simulations SET queued_at = now() - CAST(:ago AS interval) WHERE id = :id",
        ago=timedelta(hours=hours), id=simulation_id,
    )  # fmt: skip
    return simulation_id


async def test_what_waits_too_long_is_one_alert_for_all_that_is_equal(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    await target(world, receiver.url)
    await waits(world, 2, name="second")
    first = await waits(world, 3, name="first")
    await waits(world, 0.5, name="not yet")
    await waits(world, 9, name="attended", attended=True)
    assert await alerts.note_long_waits() == 1
    assert await alerts.note_long_waits() == 0
    await settled(alerts)
    [received] = receiver.received
    message = json.loads(received.body)
    assert message["type"] == "simulation.waits_too_long"
    assert message["data"]["simulation"]["number"] == first
    assert message["data"]["waiting"]["simulations"] == 2
    assert message["data"]["waiting"]["reason"] == "NO_MACHINE_FITS"
    assert "has waited for 3 h" in message["data"]["sentence"]

    await world.execute("UPDATE queue_classes SET alerted_at = now() - interval '61 minutes'")
    assert await alerts.note_long_waits() == 1, "a reminder after the same time"


async def test_equal_simulations_that_name_other_targets_are_alerts_of_their_own(world: World, alerts: Alerts) -> None:
    ops = await target(world, "http://127.0.0.1:1/")
    await waits(world, 2)
    await waits(world, 2, alert_target_ids=(ops.id,))
    assert await alerts.note_long_waits() == 2


async def test_long_waits_are_not_recorded_if_no_target_listens(world: World, alerts: Alerts) -> None:
    await target(world, "http://127.0.0.1:1/", kinds=("FAILED",))
    await waits(world, 2)
    assert await alerts.note_long_waits() == 0


async def test_long_waits_are_turned_off_by_the_setting(world: World) -> None:
    await target(world, "http://127.0.0.1:1/")
    await waits(world, 2)
    assert await Alerts(world.sessions, Settings(alert_wait_seconds=0)).note_long_waits() == 0


# --- tests of targets, and old deliveries --------------------------------------------------------------------


async def test_an_accepted_test_sends_again_at_once_what_failed(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    ops = await target(world, receiver.url)
    receiver.status = 500
    await cancelled(world)
    await settled(alerts)
    receiver.status = 204
    async with world.sessions.begin() as session:
        message = alert_deliveries.Message(ops.id, "alert.test", '{"type":"alert.test"}', "Test", "Test")
        await alert_deliveries.write(session, [message])
    await settled(alerts)
    assert [each.delivered_at is not None for each in await deliveries(world)] == [True, True]


async def test_old_deliveries_go_and_open_ones_stay(world: World, alerts: Alerts, receiver: Receiver) -> None:
    await target(world, receiver.url)
    await cancelled(world)
    await settled(alerts)
    receiver.status = 500
    await cancelled(world)
    await settled(alerts)
    await world.execute("UPDATE alert_deliveries SET created_at = now() - interval '31 days'")
    async with world.sessions.begin() as session:
        await alert_deliveries.forget(session, timedelta(days=30))
    [left] = await deliveries(world)
    assert left.delivered_at is None


async def test_a_deleted_target_takes_its_messages_along(world: World, alerts: Alerts, receiver: Receiver) -> None:
    receiver.status = 500
    ops = await target(world, receiver.url)
    await cancelled(world)
    await settled(alerts)
    async with world.sessions.begin() as session:
        await alert_targets.remove(session, ops.id, USER)
    assert await deliveries(world) == []


# --- addresses ---------------------------------------------------------------------------------------------------


async def sent_to(world: World, alerts: Alerts, url: str, **given: Any) -> str | None:
    """The error of a message to this URL."""
    await target(world, url, **given)
    await cancelled(world)
    await settled(alerts)
    return (await deliveries(world))[-1].error


async def test_a_private_address_is_never_connected_to(world: World, receiver: Receiver) -> None:
    closed = Alerts(world.sessions, Settings())
    error = await sent_to(world, closed, receiver.url)
    assert error == (
        "127.0.0.1 is not a public address. SIMULATIONS_ALERT_PRIVATE_NETWORKS lists the networks that are allowed."
    )
    assert receiver.received == []


async def test_a_name_with_a_private_address_among_public_ones_is_refused(world: World, receiver: Receiver) -> None:
    async def both(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    closed = Alerts(world.sessions, Settings(), webhooks=Webhooks((), both))
    error = await sent_to(world, closed, f"http://hooks.example.org:{receiver.port}/")
    assert str(error).startswith("127.0.0.1 is not a public address.")
    assert receiver.received == []


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(world: World, receiver: Receiver) -> None:
    """A name that changes its address after it was looked up is connected to at the address that was checked."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    asked = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    allowed = Settings(alert_private_networks=("127.0.0.1/32",)).alert_networks  # type: ignore[call-arg]  # as above
    alerts = Alerts(world.sessions, OPEN, webhooks=Webhooks(allowed, rebinding))
    url = f"http://hooks.invalid:{receiver.port}/x"  # a name that no other look-up would find
    assert await sent_to(world, alerts, url) is None
    [received] = receiver.received
    assert received.headers["host"] == f"hooks.invalid:{receiver.port}"
    assert asked == ["hooks.invalid"], "there is one look-up for a connection"

    await cancelled(world)
    await settled(alerts)
    error = (await deliveries(world))[-1].error
    assert str(error).startswith("127.0.0.2 is not a public address."), "the next connection is checked again"
    assert len(receiver.received) == 1


async def test_an_unknown_name_is_an_error_of_the_delivery(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object, **__: object) -> None:  # at once, wherever names are looked up here
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await sent_to(world, Alerts(world.sessions, OPEN), "http://hooks.invalid/x")
    assert error == "The host's name could not be resolved."


async def test_https_is_verified_by_the_name(world: World, receiver: Receiver) -> None:
    error = await sent_to(world, Alerts(world.sessions, OPEN), f"https://127.0.0.1:{receiver.port}/")
    assert str(error).startswith("The connection failed:")
    assert receiver.received == []


# --- Apprise -----------------------------------------------------------------------------------------------------


async def test_apprise_sends_the_title_and_the_text(world: World, alerts: Alerts, receiver: Receiver) -> None:
    url = f"json://127.0.0.1:{receiver.port}/hook"
    assert await sent_to(world, alerts, url, transport=Transport.APPRISE) is None
    [received] = receiver.received
    told = json.loads(received.body)
    assert told["title"].endswith("in default was cancelled")
    assert told["message"].startswith("s (#")
    assert "https://simulations.example.org/simulations/" in told["message"]


async def test_apprise_does_not_connect_to_private_addresses_either(world: World, receiver: Receiver) -> None:
    closed = Alerts(world.sessions, Settings())
    url = f"json://user:hidden@localhost:{receiver.port}/hook"
    error = await sent_to(world, closed, url, transport=Transport.APPRISE)
    assert str(error).startswith(("127.0.0.1 is not a public address.", "::1 is not a public address."))
    assert "hidden" not in str(error)
    assert receiver.received == []


async def test_a_service_that_does_not_accept_is_named_without_its_url(
    world: World, alerts: Alerts, receiver: Receiver
) -> None:
    receiver.status = 500
    url = f"json://user:hidden@127.0.0.1:{receiver.port}/hook"
    error = await sent_to(world, alerts, url, transport=Transport.APPRISE)
    assert error == "JSON did not accept the notification."


async def test_a_service_that_does_not_answer_is_cut_off(world: World, receiver: Receiver) -> None:
    receiver.hold = threading.Event()
    await target(world, f"json://127.0.0.1:{receiver.port}/", transport=Transport.APPRISE)
    await cancelled(world)
    async with world.sessions.begin() as session:
        pending = await alert_deliveries.pending_events(session, 10)
        assert pending
    alerts = Alerts(world.sessions, OPEN)
    await alerts._write()
    async with driver_of(world.sessions) as driver:
        [due] = (await alert_deliveries.look(driver)).due_targets
    async with world.sessions.begin() as session:
        sending = await alert_deliveries.claim(session, due, timedelta(minutes=1))
    assert sending is not None
    sent = asyncio.create_task(alert_apprise.send(sending, OPEN.alert_networks, timeout_seconds=3))
    with pytest.raises(DeliveryFailed, match="within 3 seconds"):
        await sent
