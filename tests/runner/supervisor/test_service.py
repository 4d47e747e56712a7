"""Which replies count, and where the service is looked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Until = Callable[[Callable[[], object]], None]


OVER_FROM_ELSEWHERE = {"attempt": {"id": "QXR0ZW1wdDo5OTk="}, "verdict": "OVER", "expectedBatch": 1, "userErrors": []}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((401, b'{"errors": [{"message": "who?"}]}'), id="401"),
        pytest.param((404, b"not found"), id="404"),
        pytest.param((302, b""), id="302"),
        pytest.param((500, json.dumps({"data": {"reportAttempt": OVER_FROM_ELSEWHERE}}).encode()), id="500"),
        pytest.param((200, b"<html>Welcome to the hotel's wireless network</html>"), id="a captive portal"),
        pytest.param(
            (200, json.dumps({"data": {"reportAttempt": OVER_FROM_ELSEWHERE}}).encode()), id="another attempt"
        ),
        pytest.param((200, b'{"data": {"reportAttempt": null}}'), id="null"),
        pytest.param((200, b'{"data": null, "errors": [{"message": "internal"}]}'), id="an error"),
        pytest.param((200, b"[" * 100_000), id="a deep list"),
        pytest.param((200, b"[1]"), id="a list"),
        pytest.param((200, b"\xff\xfe"), id="bytes"),
        pytest.param((200, b""), id="nothing"),
        pytest.param((200, None), id="a cut connection"),
    ],
)
def test_only_a_reply_that_names_this_attempt_counts(
    service: Any, supervise: Any, reply: tuple[int, bytes | None]
) -> None:
    left = {"helloAttempt": 2, "reportAttempt": 4}

    def misbehave(name: str, _: Mapping[str, Any]) -> tuple[int, bytes | None] | None:
        left[name] -= 1
        return reply if left[name] >= 0 else None

    service.misbehave = misbehave
    assert supervise("for i in range(3): print('{\"loss\": 1}')").wait() == 0
    assert [step for step, _ in service.points("loss")] == [0, 1, 2]
    assert service.exit["exitCode"] == 0


def test_an_error_that_comes_with_our_name_is_no_answer_either(service: Any, supervise: Any) -> None:
    named = {"attempt": {"id": "QXR0ZW1wdDo3Lw=="}, "verdict": "OVER", "expectedBatch": 1, "userErrors": []}
    reply = json.dumps({"data": {"reportAttempt": named}, "errors": [{"message": "half of it failed"}]}).encode()
    tries = iter([(200, reply)] * 3)
    service.misbehave = lambda name, _: next(tries, None) if name == "reportAttempt" else None
    assert supervise("print('{\"loss\": 1}')").wait() == 0
    assert service.points("loss") == [(0, 1.0)]


def test_the_address_may_change_while_it_runs(service: Any, supervise: Any, tmp_path: Path) -> None:
    supervise(
        "print('{\"loss\": 1}')\ninput_file = '" + str(tmp_path / "go") + "'\n"
        "import os, time\nwhile not os.path.exists(input_file): time.sleep(0.01)\nprint('{\"loss\": 2}')"
    )
    service.wait(lambda: service.points("loss"))
    service.close()
    (tmp_path / "go").touch()
    (tmp_path / "address").write_text(service.open())
    service.wait(lambda: service.exit)
    assert service.points("loss") == [(0, 1.0), (1, 2.0)]
    assert len(service.nonces) == 1


def test_the_service_may_come_up_after_the_supervisor(
    service: Any, supervise: Any, tmp_path: Path, until: Until
) -> None:
    url, service.url = service.url, "no address at all"
    started = supervise("print('{\"loss\": 1}')")
    until(lambda: "can't be reached" in started.complaints)
    (tmp_path / "address").unlink()
    (tmp_path / "address").write_text(url)
    assert started.wait() == 0
    assert service.points("loss") == [(0, 1.0)]
