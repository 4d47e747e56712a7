"""`--stop` and `--objective` as inputs of the API, in `submit`, `update`, files and `show`; mistakes as sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cli.answers import StopRule
from cli.errors import UsageError
from cli.stop_rules import parse_objective, parse_rules
from cli.submission_file import read_submissions

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
DEFAULT: dict[str, Any] = {
    "metric": "val/loss", "mode": "MIN", "minDelta": 0.0, "patience": None, "gracePeriod": 0,
    "stoppingThreshold": None, "divergenceThreshold": None, "checkFinite": True, "smoothing": 0.0, "plateau": True,
    "rising": True, "aggressive": False, "dryRun": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plateau,metric=val/loss", {"plateau": True, "metric": "val/loss"}),
        (
            "patience=1_0, min_delta=1e-3,metric=a=b,mode=Max",
            {"patience": 10, "minDelta": 0.001, "metric": "a=b", "mode": "MAX"},
        ),
        (
            "target=0.95,no-plateau,no-rising,no-check-finite,dry-run,grace-period=7",
            {
                "stoppingThreshold": 0.95, "plateau": False, "rising": False, "checkFinite": False, "dryRun": True,
                "gracePeriod": 7,
            },
        ),
        (
            "divergence-threshold=-1,smoothing=.5,aggressive",
            {"divergenceThreshold": -1.0, "smoothing": 0.5, "aggressive": True},
        ),
    ],
)  # fmt: skip
def test_a_rule_is_words_with_commas(text: str, expected: dict[str, Any]) -> None:
    assert parse_rules([text]) == [expected]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("patience", "patience needs a value"),
        ("patience=x", "patience: expected a whole number of evaluations, got 'x'"),
        ("pateince=3", "did you mean patience?"),
        ("plateau=1", "plateau has no value: plateau or no-plateau"),
        ("plateu", "did you mean plateau?"),
        ("mode=up", "expected one of min, max"),
        ("target=1,stopping-threshold=2", "stopping-threshold is given twice"),
        ("plateau,no-plateau", "plateau is given twice"),
        ("", "is no part of a stop rule"),
    ],
)
def test_a_mistake_in_a_rule_is_named(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=r"--stop") as raised:
        parse_rules([text])
    assert sentence in str(raised.value)


def test_an_objective_has_a_mode_behind_its_last_colon() -> None:
    assert parse_objective("val/loss") == {"metric": "val/loss"}
    assert parse_objective("acc:max") == {"metric": "acc", "mode": "MAX"}
    assert parse_objective("a:b") == {"metric": "a:b"}
    assert parse_objective(None) is None


def test_submit_sends_rules_objective_and_limits(server: Any, simulation: Make, run: Run) -> None:
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": simulation(), "userErrors": []}}
    result = run(
        "submit", "--stop", "plateau,metric=val/loss", "--stop", "target=0.9,metric=acc,dry-run", "--objective",
        "val/loss:min", "--max-cost", "12.50", "--max-steps", "1000", "--", "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (sent,) = server.variables("Create")
    assert sent["input"] == {
        "entrypoint": ["run"],
        "objective": {"metric": "val/loss", "mode": "MIN"},
        "stopping": [
            {"plateau": True, "metric": "val/loss"}, {"stoppingThreshold": 0.9, "metric": "acc", "dryRun": True},
        ],
        "limits": {"maxCost": "12.50", "maxSteps": 1000},
    }  # fmt: skip


def test_update_sends_what_is_given_and_none_removes_a_limit(server: Any, simulation: Make, run: Run) -> None:
    server.answers["Update"] = lambda _: {"updateSimulation": {"simulation": simulation(), "userErrors": []}}
    result = run(
        "update", "U2ltdWxhdGlvbjox", "--stop", "patience=3", "--max-cost", "none", "--max-runtime", "2h",
        "--max-steps", "1_000", "--priority", "2", "--tag", "a",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "updated" in result.stdout
    (sent,) = server.variables("Update")
    assert sent["input"] == {
        "id": "U2ltdWxhdGlvbjox", "stopping": [{"patience": 3}], "priority": 2, "tags": ["a"],
        "limits": {"maxCost": None, "maxRuntimeSeconds": 7200, "maxSteps": 1000},
    }  # fmt: skip
    assert run("update", "U2ltdWxhdGlvbjox", "--objective", "").exit_code == 0
    assert server.variables("Update")[-1]["input"] == {"id": "U2ltdWxhdGlvbjox", "objective": None}
    assert run("update", "U2ltdWxhdGlvbjox", "--objective", "none").exit_code == 0
    assert server.variables("Update")[-1]["input"] == {"id": "U2ltdWxhdGlvbjox", "objective": {"metric": "none"}}
    assert run("update", "U2ltdWxhdGlvbjox", "--no-stop").exit_code == 0
    assert server.variables("Update")[-1]["input"] == {"id": "U2ltdWxhdGlvbjox", "stopping": []}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Nothing to change"),
        (["--no-stop", "--stop", "plateau"], "can't be combined"),
        (["--max-steps", "many"], "--max-steps: expected a whole number or none"),
    ],
)
def test_update_names_wrong_usage(run: Run, options: list[str], sentence: str) -> None:
    result = run("update", "U2ltdWxhdGlvbjox", *options)
    assert (result.exit_code, sentence in result.stderr) == (2, True)


def test_a_file_has_rules_with_the_same_names(tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text(
        "entrypoint: [run]\nobjective: {metric: acc, mode: MAX}\nlimits: {max_cost: 2.50, max_steps: 100}\n"
        "stopping:\n  - {patience: 10, min_delta: 0.1}\n  - {metric: loss, dry_run: true, check_finite: false}\n"
    )
    assert read_submissions(str(file)) == {
        "entrypoint": ["run"],
        "objective": {"metric": "acc", "mode": "MAX"},
        "limits": {"maxCost": "2.5", "maxSteps": 100},
        "stopping": [
            {"patience": 10, "minDelta": 0.1}, {"metric": "loss", "dryRun": True, "checkFinite": False},
        ],
    }  # fmt: skip


def test_a_mistake_in_a_file_has_its_line_and_the_right_key(tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_text("stopping:\n  - metric: loss\n  - pateince: 3\n")
    with pytest.raises(UsageError, match=r":3: stopping\.1\.pateince: unknown key; did you mean patience\?"):
        read_submissions(str(file))


def test_show_prints_rules_as_they_are_written_and_the_evidence(server: Any, simulation: Make, run: Run) -> None:
    details = {
        **simulation(state="FINISHED", reason="PATIENCE_EXHAUSTED"),
        "entrypoint": ["run"], "parameters": {}, "environment": {}, "workingDirectory": None, "tags": [],
        "priority": 0, "queuePosition": None, "createdBy": "me", "retryOf": None, "attempts": [], "events": [],
        "resources": {
            "cpus": 1, "memoryGib": 0, "gpus": 0, "gpuModel": None, "labels": {}, "machine": None,
            "maxPricePerHour": None,
        },
        "limits": {"maxRuntimeSeconds": None, "maxCost": "5", "maxSteps": 100, "maxRetries": 0, "retryOn": []},
        "forecast": {"sentence": "By step 100 the best val/loss would have been about 0.2."},
        "objective": {"metric": "val/loss", "mode": "MIN", "value": 0.5, "bestValue": 0.25, "bestStep": 40},
        "stopping": {
            "rules": [{**DEFAULT, "patience": 3, "dryRun": True}],
            "evidence": {"reason": "PATIENCE_EXHAUSTED", "sentence": "val/loss has not improved."},
            "wouldHaveStopped": [{"reason": "PATIENCE_EXHAUSTED", "sentence": "It would have."}],
            "notices": ["The stop rule's metric val/loss was never reported."],
        },
    }  # fmt: skip
    server.answers["Details"] = lambda _: {"simulation": details}
    shown = " ".join(run("show", "U2ltdWxhdGlvbjox").stdout.split())
    for part in (
        "metric=val/loss,mode=min,patience=3,dry-run", "val/loss has not improved.", "It would have.",
        "was never reported", "val/loss (min), now 0.5, best 0.25 at step 40", "at most 5.00 in all",
        "By step 100 the best val/loss would have been",
    ):  # fmt: skip
        assert part in shown


def test_a_rule_that_is_shown_can_be_given_again() -> None:
    rule = StopRule(**{**DEFAULT, "patience": 3, "stoppingThreshold": 0.5, "rising": False, "aggressive": True})
    assert parse_rules([rule.words()]) == [
        {
            "metric": "val/loss", "mode": "MIN", "patience": 3, "stoppingThreshold": 0.5, "rising": False,
            "aggressive": True,
        }
    ]  # fmt: skip
