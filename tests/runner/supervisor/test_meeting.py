"""Members of a gang before they run: address and port in their hello, the wait for others; points of higher ranks."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest

from runner.supervisor.meeting import HeldPort, own_address

BOUND = """
import os, socket
listener = socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
print("bound", listener.getsockname()[1])
"""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_a_held_port_is_free_for_nothing_until_it_is_released() -> None:
    held = HeldPort()
    assert not is_free(held.number)
    held.release()
    assert is_free(held.number)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/graphql", "http://localhost/", "http://[::1]:1/", "nonsense"])
def test_the_address_is_one_of_this_host(url: str) -> None:
    address = own_address(url)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))


def test_rank_0_waits_with_its_port_held_and_runs_when_all_have_said_hello(service: Any, supervise: Any) -> None:
    hellos: list[Mapping[str, Any]] = []

    def answer(name: str, given: Mapping[str, Any]) -> None:
        if name == "helloAttempt":
            hellos.append(given)
            assert not is_free(given["port"])
            service.order["masterPort"] = given["port"]
            service.hello_verdict = "WAIT" if len(hellos) < 3 else "CONTINUE"

    service.misbehave = answer
    started = supervise(
        BOUND, config={"rank": 0, "world_size": 2}, rank=0, worldSize=2, addresses=["127.0.0.1", "127.0.0.1"]
    )
    assert started.wait() == 0
    assert len(hellos) == 3
    assert len({(each["nonce"], each["port"], each["address"]) for each in hellos}) == 1
    assert service.log("STDOUT") == f"bound {hellos[0]['port']}"


def test_a_single_member_says_hello_as_it_always_did(service: Any, supervise: Any) -> None:
    hellos: list[Mapping[str, Any]] = []
    service.misbehave = lambda name, given: hellos.append(given) if name == "helloAttempt" else None
    assert supervise("pass").wait() == 0
    [hello] = hellos
    assert hello.keys() == {"attemptId", "nonce"}


def test_a_member_that_is_stopped_while_it_waits_reports_its_end(service: Any, supervise: Any) -> None:
    hellos: list[str] = []

    def answer(name: str, _given: Mapping[str, Any]) -> None:
        if name == "helloAttempt":
            hellos.append(name)
            service.hello_verdict = "WAIT" if len(hellos) < 2 else "STOP"
            service.verdict, service.stop_reason = "STOP", "MACHINE_LOST"

    service.misbehave = answer
    meeting = {"addresses": [], "masterPort": None}  # rank 0 has not said hello
    supervise("print('never')", config={"rank": 1, "world_size": 2}, rank=1, worldSize=2, **meeting).wait()
    assert service.log("STDOUT") == ""
    assert service.exit is not None
    assert (service.exit["reason"], service.exit["message"]) == ("MACHINE_LOST", "It was stopped before it began.")


def test_points_of_a_higher_rank_are_log_with_a_notice(service: Any, supervise: Any) -> None:
    code = """for step in range(3): print('{"step": %d, "loss": 1.0}' % step)"""
    supervise(
        code, config={"rank": 1, "world_size": 2}, rank=1, worldSize=2, addresses=["127.0.0.1"] * 2, masterPort=1
    ).wait()
    assert service.points("loss") == []
    assert service.log("STDOUT").count("loss") == 3
    assert service.notices["HIGHER_RANK"]["count"] == 3
