"""Stop rules: each rule, their order, and the agreement of incremental and stateless judgement."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.stopping import PRIORITY, REASONS, Monitor, Rule, StopRules, Verdict, judge, validate

patient = settings(deadline=None, max_examples=50)

PLATEAU = [1.0, 0.6, 0.4, 0.3, 0.25, *([0.26, 0.27] * 40)]
RISING = [1.0, 0.6, 0.4, 0.3, *(0.3 + 0.02 * n for n in range(1, 40))]
CREEPING = [1.0, *(0.4 - 0.0001 * (n // 5) + 0.01 * (n % 5) for n in range(100))]  # a little better every five
NAN, INF = math.nan, math.inf


def verdict(values: Sequence[float], **options: object) -> Verdict | None:
    return judge(StopRules("val/loss", **options), range(len(values)), values)  # type: ignore[arg-type]


def decided(values: Sequence[float], **options: object) -> tuple[Rule, int] | None:
    found = verdict(values, **options)
    return (found.rule, found.step) if found is not None else None


# --- each rule -------------------------------------------------------------------------------------------------


def test_metric_and_mode_alone_stop_a_plateau_and_what_is_not_a_number() -> None:
    assert decided(PLATEAU) == (Rule.PLATEAU, 4 + 15)
    assert decided([-each for each in PLATEAU], mode="MAX") == (Rule.PLATEAU, 4 + 15)
    assert decided([1.0, NAN]) == (Rule.NON_FINITE, 1)
    assert decided([1.0, -INF]) == (Rule.NON_FINITE, 1)
    assert decided([1 / (n + 1) for n in range(500)]) is None


def test_a_known_plan_has_no_plateau_in_its_first_60_percent() -> None:
    assert decided(PLATEAU, max_steps=80) == (Rule.PLATEAU, 48)
    assert decided(PLATEAU, max_steps=20) == (Rule.PLATEAU, 4 + 8)


def test_a_run_past_its_plan_is_judged_as_one_without() -> None:
    late = [1 / (n + 1) for n in range(40)] + [1.0] * 40
    assert decided(late, max_steps=100, rising=False) == (Rule.PLATEAU, 60)
    assert decided(late, max_steps=30) == decided(late) == (Rule.PLATEAU, 39 + 15)


def test_a_run_that_never_improved_is_given_more_time() -> None:
    flat = [1.0] * 60
    assert decided(flat) == (Rule.PLATEAU, 50)
    assert decided(flat, max_steps=50) == (Rule.PLATEAU, 40)


def test_a_trend_that_would_beat_the_best_is_waited_for() -> None:
    spike = [1.0, 0.5, *(2.0 - 0.09 * n for n in range(1, 25))]
    assert decided(spike) is None
    assert decided(spike, patience=15) == (Rule.PATIENCE, 16)


def test_rising_stops_early_only_with_a_plan_and_by_more_than_the_noise() -> None:
    assert decided(RISING, max_steps=100) == (Rule.RISING, 3 + 10)
    assert decided(RISING, max_steps=100, rising=False) is None
    assert decided(RISING) == (Rule.PLATEAU, 3 + 15)
    noisy = [1.0, 0.6, 0.4, 0.3, *([0.31, 0.9] * 20)]
    assert decided(noisy, max_steps=100) is None


def test_slow_is_asked_for() -> None:
    assert decided(CREEPING, max_steps=100) is None
    assert decided(CREEPING, max_steps=100, aggressive=True) == (Rule.SLOW, 60)
    steady = [1.0, 0.5, *(0.4 - 0.00001 * n for n in range(90))]
    assert decided(steady, max_steps=100, aggressive=True) is None  # its trend would beat the best


def test_patience_replaces_the_default() -> None:
    assert decided(PLATEAU, patience=3) == (Rule.PATIENCE, 4 + 3)
    assert decided(PLATEAU, patience=0) == (Rule.PATIENCE, 4 + 1)
    assert decided(PLATEAU, patience=70) == (Rule.PATIENCE, 4 + 70)
    assert decided(RISING, patience=30, max_steps=100) == (Rule.PATIENCE, 3 + 30)


def test_a_threshold_is_reached_at_it_and_diverged_beyond_it() -> None:
    assert decided([1.0, 0.5, 0.4], stopping_threshold=0.5) == (Rule.STOPPING_THRESHOLD, 1)
    assert decided([0.1, 0.5, 0.6], mode="MAX", stopping_threshold=0.5) == (Rule.STOPPING_THRESHOLD, 1)
    assert decided([1.0, 2.0, 2.1], divergence_threshold=2.0) == (Rule.DIVERGENCE_THRESHOLD, 2)
    assert decided([1.0, 0.2, 0.1], mode="MAX", divergence_threshold=0.2) == (Rule.DIVERGENCE_THRESHOLD, 2)


def test_a_run_with_a_target_is_judged_as_one_without_a_plan() -> None:
    target = -1.0  # never reached
    assert decided(RISING, max_steps=100, stopping_threshold=target) == decided(RISING) == (Rule.PLATEAU, 18)


def test_no_stop_before_the_grace_period_is_over() -> None:
    assert decided(PLATEAU, grace_period=30) == (Rule.PLATEAU, 30)
    assert decided([NAN, 1.0, NAN, NAN], grace_period=3) == (Rule.NON_FINITE, 3)
    assert decided([0.0, 0.0, 0.0], stopping_threshold=1.0, grace_period=2) == (Rule.STOPPING_THRESHOLD, 2)


def test_values_that_are_not_finite_are_no_improvement_if_they_are_allowed() -> None:
    assert decided([1.0, *[NAN] * 60], check_finite=False) == (Rule.PLATEAU, 50)
    assert decided([NAN, -INF, 1.0, INF, 0.5], check_finite=False, stopping_threshold=0.5) == (
        Rule.STOPPING_THRESHOLD,
        4,
    )


def test_small_improvements_count_unless_min_delta_is_above_them() -> None:
    creeping = [1 - 0.001 * n for n in range(100)]
    assert decided(creeping, patience=5) is None
    assert decided(creeping, patience=5, min_delta=0.01) == (Rule.PATIENCE, 5)


def test_smoothing_hides_a_lucky_value() -> None:
    lucky = [1.0] * 10 + [0.4] + [1.0] * 5
    assert decided(lucky, stopping_threshold=0.5) == (Rule.STOPPING_THRESHOLD, 10)
    assert decided(lucky, stopping_threshold=0.5, smoothing=0.9) is None


def test_a_dense_metric_is_judged_by_its_evaluations() -> None:
    chance = Random(3)
    steps = range(20_001)
    falling = [math.exp(-step / 8_000) + chance.gauss(0, 0.05) for step in steps]
    assert judge(StopRules("loss", max_steps=20_000), steps, falling) is None
    flat = [max(math.exp(-step / 400), 0.1) + chance.gauss(0, 0.05) for step in steps]
    found = judge(StopRules("loss", max_steps=20_000, rising=False), steps, flat)
    assert found is not None
    assert 12_000 <= found.step < 16_000
    assert found.evaluations <= 200


# --- order and evidence ----------------------------------------------------------------------------------------


def test_the_list_of_rules_is_their_order() -> None:
    assert [rule for rule, _, _ in PRIORITY] == [*Rule] == [*REASONS]
    both = {"patience": 2, "stopping_threshold": 0.9, "grace_period": 3}
    assert decided([0.5, 0.6, 0.7, 0.8], **both) == (Rule.STOPPING_THRESHOLD, 3)


def test_reasons_are_those_of_the_state_machine() -> None:
    assert set(REASONS.values()) == {
        "STOPPING_THRESHOLD",
        "PATIENCE_EXHAUSTED",
        "DIVERGENCE_THRESHOLD",
        "NON_FINITE_METRIC",
    }
    assert {rule for rule, reason in REASONS.items() if reason == "PATIENCE_EXHAUSTED"} == {
        Rule.PATIENCE,
        Rule.PLATEAU,
        Rule.RISING,
        Rule.SLOW,
    }


def test_the_evidence_is_json_and_holds_what_decided() -> None:
    found = verdict(PLATEAU)
    assert found is not None
    evidence = json.loads(json.dumps(found.evidence(), allow_nan=False))
    assert evidence == {
        "rule": "PLATEAU",
        "metric": "val/loss",
        "step": 19,
        "value": 0.26,
        "bestStep": 4,
        "bestValue": 0.25,
        "threshold": None,
        "evaluations": 15,
        "share": round(15 / 19, 4),
        "steps": list(range(20)),
        "values": PLATEAU[:20],
    }
    broken = verdict([1.0, NAN])
    assert broken is not None
    assert json.loads(json.dumps(broken.evidence(), allow_nan=False))["value"] is None


def test_evidence_of_a_maximised_metric_has_its_own_sign() -> None:
    found = verdict([0.1, 0.9, *[0.8] * 10], mode="MAX", patience=5)
    assert found is not None
    assert (found.value, found.best_value, found.best_step, found.values[:2]) == (0.8, 0.9, 1, (0.1, 0.9))


@pytest.mark.parametrize(
    ("values", "options", "sentence"),
    [
        (
            PLATEAU,
            {},
            "val/loss has not improved on 0.25 (step 4) for 15 evaluations (79 % of the run so far); the trend since "
            "then would not reach it again.",
        ),
        (
            RISING,
            {"max_steps": 100},
            "val/loss has not improved on 0.3 (step 3) for 10 evaluations (77 % of the run so far); since then it has "
            "become worse by more than its noise.",
        ),
        (
            [*[1.0] * 6, *[0.5] * 3, *[0.6] * 9],
            {"patience": 3, "max_steps": 600},
            "val/loss (mean of 3 points) has not improved on 0.5 (step 8) for 3 evaluations (60 % of the run so far).",
        ),
        (
            [1.0, 1.0],
            {"patience": 1},
            "val/loss has not improved on 1 (step 0) for 1 evaluation (100 % of the run so far).",
        ),
        (
            [1.0, 0.21434],
            {"stopping_threshold": 0.25},
            "val/loss reached 0.2143 at step 1: the stopping threshold is 0.25.",
        ),
        (
            [1.0, 12345.6],
            {"divergence_threshold": 1000},
            "val/loss was 12,346 at step 1: the divergence threshold is 1,000.",
        ),
        ([1.0, NAN], {}, "val/loss was NaN at step 1."),
        ([INF], {}, "val/loss was infinite at step 0."),
        (
            CREEPING,
            {"max_steps": 100, "aggressive": True},
            "val/loss improves too slowly: at its present rate the rest of the run would improve on 0.3989 (step 56) "
            "by less than 1 %.",
        ),
    ],
)
def test_the_sentence_explains_the_rule(values: list[float], options: dict[str, object], sentence: str) -> None:
    found = verdict(values, **options)
    assert found is not None
    assert found.sentence() == sentence


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"metric": " "}, "metric must not be empty."),
        ({"metric": "m" * 201}, "metric must have at most 200 characters."),
        ({"metric": "lo\x1bss"}, "metric must have printable characters only."),
        ({"mode": "DOWN"}, "mode must be MIN or MAX."),
        ({"patience": -1}, "patience must not be negative."),
        ({"min_delta": -0.1}, "minDelta must not be negative."),
        ({"min_delta": INF}, "minDelta must be a finite number."),
        ({"grace_period": -1}, "gracePeriod must not be negative."),
        ({"smoothing": 1.0}, "smoothing must be at least 0 and below 1."),
        ({"stopping_threshold": NAN}, "stoppingThreshold must be a finite number."),
        ({"divergence_threshold": INF}, "divergenceThreshold must be a finite number."),
        ({"max_steps": 0}, "maxSteps must be at least 1."),
        (
            {"stopping_threshold": 2.0, "divergence_threshold": 1.0},
            "stoppingThreshold must be below divergenceThreshold for mode MIN.",
        ),
        (
            {"mode": "MAX", "stopping_threshold": 1.0, "divergence_threshold": 1.0},
            "stoppingThreshold must be above divergenceThreshold for mode MAX.",
        ),
        ({"aggressive": True}, "aggressive needs maxSteps, and no stoppingThreshold: it has no effect otherwise."),
        ({"check_finite": False, "plateau": False, "rising": False}, "No stop rule is on."),
    ],
)
def test_a_mistake_is_a_sentence(options: dict[str, object], problem: str) -> None:
    assert validate(StopRules(**{"metric": "loss", **options})) == [problem]  # type: ignore[arg-type]


def test_good_rules_have_no_mistake() -> None:
    assert validate(StopRules("val/loss")) == []
    assert validate(StopRules("acc", "MAX", stopping_threshold=0.9, divergence_threshold=0.1, patience=0)) == []
    assert validate(StopRules("loss", aggressive=True, max_steps=10)) == []


# --- agreement -------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, 1.0, -1.0, NAN, INF, -INF, 1e308]),
)
RULES = st.builds(
    StopRules,
    metric=st.just("m"),
    mode=st.sampled_from(["MIN", "MAX"]),
    min_delta=st.sampled_from([0.0, 0.5]),
    patience=st.sampled_from([None, None, 0, 4]),
    grace_period=st.sampled_from([0, 7]),
    stopping_threshold=st.sampled_from([None, -9.0]),
    divergence_threshold=st.sampled_from([None, 9.0]),
    check_finite=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.6]),
    plateau=st.booleans(),
    rising=st.booleans(),
    aggressive=st.booleans(),
    max_steps=st.sampled_from([None, 40, 100, 2_000]),
)


@patient
@given(RULES, st.lists(VALUES, max_size=80), st.integers(1, 3))
def test_point_by_point_and_all_at_once_agree_at_every_prefix(
    rules: StopRules, values: list[float], distance: int
) -> None:
    steps = range(0, distance * len(values), distance)
    monitor, first = Monitor(rules), None
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        found = monitor.add(step, value)
        first = first or found
        again = judge(rules, steps[: index + 1], values[: index + 1], since=index)
        assert repr(found) == repr(again)
    assert repr(judge(rules, steps, values)) == repr(first)
    assert repr(Monitor(rules).extend(steps, values)) == repr(first)


def reference(values: Sequence[float], planned: int | None) -> Rule | None:
    """The default and SLOW as they are written down, from all values each time."""
    n, best = len(values) - 1, min(values)
    last = values.index(best)
    gap, never = n - last, last == 0
    known = planned is not None and n <= planned
    k, k0, gr = (8, 40, 0.6) if known else (15, 50, 0.0)
    early = planned is not None and known and n < gr * planned
    window = values[max(n + 1 - max(gap, 4), 0) :]
    half = len(window) // 2
    recovering = False
    if half:
        a, b = statistics.median(window[:half]), statistics.median(window[-half:])
        r = min(4, (planned - n) / half) if planned is not None and known else 4
        recovering = a > b and b - r * (a - b) < best
    if not early and gap >= max(k, 0.1 * n, k0 if never else 0) and not recovering:
        return Rule.PLATEAU
    if known and not never and gap >= max(10, 0.2 * n):
        noise = statistics.median(abs(y - x) for x, y in pairwise(window))
        if b > a and min(window[-half:]) > best + noise / 0.954:
            return Rule.RISING
    if planned is not None and known and not early and not never and n >= 10 and not recovering:
        w = max(3, int(0.3 * n))
        if (min(values[: n - w + 1]) - best) * (planned - n) / w < 0.01 * abs(best):
            return Rule.SLOW
    return None


@patient
@given(st.integers(0, 10**9), st.sampled_from([None, 50, 100, 190]))
def test_the_default_is_what_is_written_down(seed: int, planned: int | None) -> None:
    chance = Random(seed)
    floor, pace, noise, drift = chance.random(), chance.uniform(1, 60), chance.choice([0, 0.01, 0.1]), chance.random()
    values = [
        floor + math.exp(-n / pace) + chance.gauss(0, noise) + 0.02 * drift * max(n - 50, 0) * chance.choice([0, 1])
        for n in range(150)
    ]
    rules = StopRules("m", max_steps=planned, aggressive=planned is not None)
    monitor = Monitor(rules)
    for n, value in enumerate(values):
        found = monitor.add(n, value)
        assert (found.rule if found is not None else None) == reference(values[: n + 1], planned)


def test_rules_that_came_later_do_not_stop_for_what_was_before() -> None:
    values = [1.0, *[1.0] * 6, 0.5, 0.4]
    rules = StopRules("m", patience=5)
    assert judge(rules, range(9), values) is not None
    assert judge(rules, range(9), values, since=7) is None
