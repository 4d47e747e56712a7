"""Alerts on real processes: sent by the service, once its receiver is up again, and after a killed scheduler."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from live import Service, eventually, free_port, kill
from receiver import receiving

CREATE = """
mutation Create($input: CreateAlertTargetInput!) {
  createAlertTarget(input: $input) { alertTarget { id } secret userErrors { message } }
}
"""
ALERTS = "query Alerts($id: ID!) { simulation(id: $id) { alerts { type state attempts target { name } } } }"


@pytest.fixture
async def service(lend: Any) -> AsyncIterator[Service]:
    """A service that may send to this host."""
    async with lend(SIMULATIONS_ALERT_PRIVATE_NETWORKS="127.0.0.0/8") as service:
        yield service


async def target(service: Service, url: str, **given: Any) -> str:
    """Create a target; return its secret."""
    wanted = {"name": "ops", "transport": "WEBHOOK", "url": url, "isDefault": True, **given}
    made = (await service.execute(CREATE, input=wanted))["createAlertTarget"]
    assert made["userErrors"] == []
    return str(made["secret"])


async def alerts_of(service: Service, simulation: str) -> list[dict[str, Any]]:
    return list((await service.execute(ALERTS, id=simulation))["simulation"]["alerts"])


async def later(service: Service) -> None:
    """Pauses and claims have passed."""
    await service.alter("UPDATE alert_deliveries SET next_at = now()")


async def test_a_message_arrives_once_its_receiver_is_up_again(service: Service) -> None:
    port = free_port()
    secret = await target(service, f"http://127.0.0.1:{port}/hook")
    simulation = await service.submit("python", "-c", "raise SystemExit(3)", name="fails", alerts=["ops"])
    await service.finished(simulation)

    async def has_failed() -> bool:
        return any(each["attempts"] for each in await alerts_of(service, simulation))

    await eventually(has_failed, "the first attempt has failed")
    assert [each["state"] for each in await alerts_of(service, simulation)] == ["PENDING"]

    with receiving(port) as receiver:

        async def is_reached() -> bool:
            await later(service)
            return bool(receiver.received)

        await eventually(is_reached, "the message arrives")
        message = receiver.received[0].verified(secret)
        assert message["type"] == "simulation.failed"
        assert message["data"]["simulation"]["name"] == "fails"
        assert message["data"]["simulation"]["reason"] == "EXIT_CODE"

        async def is_delivered() -> bool:
            return [each["state"] for each in await alerts_of(service, simulation)] == ["DELIVERED"]

        await eventually(is_delivered, "it is noted")
        assert len(set(receiver.ids)) == 1


async def test_a_scheduler_killed_between_sending_and_noting_sends_again_with_the_same_id(service: Service) -> None:
    with receiving() as receiver:
        receiver.hold = threading.Event()
        secret = await target(service, receiver.url)
        simulation = await service.submit("true")
        await eventually(receiver.is_reached(), "the message is being sent")

        kill(service.child("scheduler"))
        await service.whole()
        receiver.hold.set()
        await later(service)
        await eventually(receiver.is_reached(2), "it is sent again")

        first, second = receiver.received[:2]
        assert first.id == second.id
        assert first.verified(secret) == second.verified(secret)

        async def is_delivered() -> bool:
            return [each["state"] for each in await alerts_of(service, simulation)] == ["DELIVERED"]

        await eventually(is_delivered, "it is noted")


async def test_apprise_and_a_webhook_get_the_same_sentence(service: Service) -> None:
    with receiving() as hook, receiving() as chat:
        secret = await target(service, hook.url)
        await target(service, f"json://user:hidden@127.0.0.1:{chat.port}/x", name="chat", transport="APPRISE")
        await service.submit("true", name="digits")
        await eventually(lambda: bool(hook.received and chat.received), "both have it")
        sentence = hook.received[0].verified(secret)["data"]["sentence"]
        assert sentence in json.loads(chat.received[0].body)["message"]
        assert "hidden" not in service.log
