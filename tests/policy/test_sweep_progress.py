"""Progress of a sweep: results over seeds, money that is never overspent, when no more trials begin."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from policy.sampling import Outcome
from policy.sweep_progress import (
    Ending,
    Limits,
    Run,
    Standing,
    SweepReason,
    Told,
    allotment,
    ending,
    seconds_left,
    slots,
    told,
    unreported,
    without_result,
)

LIMITS = Limits("MIN", trials=10, parallel=2)


def complete(*values: float, cost: str = "1") -> list[tuple[Told, Decimal]]:
    return [(Told(Outcome.COMPLETE, value), Decimal(cost)) for value in values]


def reason(limits: Limits, standing: Standing) -> str | None:
    found = ending(limits, standing, "USD")
    return found.reason.value if found is not None else None


# --- a trial ---------------------------------------------------------------------------------------------------


def test_a_trial_has_the_mean_of_its_seeds_and_their_spread() -> None:
    assert told([Run("COMPLETED", 0.5)]) == Told(Outcome.COMPLETE, 0.5)
    assert told([Run("COMPLETED", 1.0), Run("STOPPING_THRESHOLD", 3.0)]) == Told(Outcome.COMPLETE, 2.0, 2**0.5)
    assert told([Run("COMPLETED", 1e308), Run("COMPLETED", 1e308)]) == Told(Outcome.COMPLETE, 1e308, 0.0)


def test_a_trial_fails_unless_more_than_half_of_its_seeds_have_a_result() -> None:
    good, bad = Run("COMPLETED", 1.0), Run("EXIT_CODE", 0.1)
    assert told([bad]) == Told(Outcome.FAIL)
    assert told([Run("COMPLETED", None)]) == Told(Outcome.FAIL), "it reported no value"
    assert told([good, bad]) == Told(Outcome.FAIL)
    assert told([good, good, bad]) == Told(Outcome.COMPLETE, 1.0, 0.0)
    assert told([Run("MAX_COST", 1.0)]) == Told(Outcome.FAIL)
    assert told([]) == Told(Outcome.FAIL)


def test_a_trial_is_cancelled_if_a_seed_was_and_none_failed() -> None:
    good, bad, cancelled = Run("COMPLETED", 1.0), Run("EXIT_CODE", None), Run("CANCELLED", 1.0)
    assert told([cancelled]) == told([good, cancelled]) == Told(Outcome.CANCELLED)
    assert told([cancelled, bad]) == Told(Outcome.FAIL)
    assert told([good, good, cancelled]) == Told(Outcome.COMPLETE, 1.0, 0.0)


def test_a_trial_with_a_pruned_seed_is_pruned_at_the_step_of_that() -> None:
    assert told([Run("PRUNED", 0.7, 5)]) == Told(Outcome.PRUNED, 0.7, None, 5)
    assert told([Run("COMPLETED", 0.1), Run("PRUNED", 0.7, 15)]) == Told(Outcome.PRUNED, 0.7, None, 15)


# --- when no more trials begin ---------------------------------------------------------------------------------


def test_a_sweep_goes_on_until_all_trials_have_begun() -> None:
    assert reason(LIMITS, Standing()) is None
    assert slots(LIMITS, Standing()) == 2
    assert slots(LIMITS, Standing(begun=9, open=1)) == 1
    assert slots(LIMITS, Standing(begun=10, open=1)) == 0
    assert reason(LIMITS, Standing(begun=10, open=1, ended=complete(1.0))) == "COMPLETED"


def test_a_target_and_patience_count_complete_trials() -> None:
    by_target = replace(LIMITS, target=0.5)
    assert reason(by_target, Standing(3, ended=complete(0.6, 0.7))) is None
    assert reason(by_target, Standing(3, ended=complete(0.6, 0.5))) == "STOPPING_THRESHOLD"
    assert reason(replace(by_target, mode="MAX"), Standing(3, ended=complete(0.4))) is None
    patient = replace(LIMITS, patience=2)
    pruned, failed, cancelled = (
        (each, Decimal(0)) for each in (Told(Outcome.PRUNED, 0.1, step=3), Told(Outcome.FAIL), Told(Outcome.CANCELLED))
    )
    assert reason(patient, Standing(5, ended=[*complete(0.6, 0.7), failed, cancelled])) is None
    assert reason(patient, Standing(5, ended=[*complete(0.6, 0.7), pruned])) == "PATIENCE_EXHAUSTED"
    assert reason(patient, Standing(5, ended=[*complete(0.6, 0.7), pruned, *complete(0.5)])) is None, "as of now"
    assert reason(patient, Standing(5, ended=[pruned, pruned, pruned])) is None, "there is no best trial yet"


def test_a_command_that_always_fails_ends_the_sweep() -> None:
    failed = [(Told(Outcome.FAIL), Decimal(0))] * 5
    assert reason(LIMITS, Standing(5, ended=failed[:4])) is None
    assert reason(LIMITS, Standing(5, ended=failed)) == "TRIALS_FAILED"
    assert reason(LIMITS, Standing(6, ended=[*failed, *complete(1.0)])) is None
    cancelled = [(Told(Outcome.CANCELLED), Decimal(0))] * 5
    assert reason(LIMITS, Standing(5, ended=cancelled)) is None, "a person's decision says nothing about the command"
    assert reason(LIMITS, Standing(9, ended=[*cancelled, *failed[:4]])) is None
    assert reason(LIMITS, Standing(9, ended=[*cancelled[:4], *failed])) == "TRIALS_FAILED"


def test_a_sweep_without_a_result_has_failed_at_its_end() -> None:
    failed, cancelled, pruned = (
        (each, Decimal(0)) for each in (Told(Outcome.FAIL), Told(Outcome.CANCELLED), Told(Outcome.PRUNED, 0.1, step=3))
    )
    begun = Ending(SweepReason.COMPLETED, "All have begun.")
    assert without_result(begun, Standing(3, ended=[failed, cancelled, failed])) == Ending(
        SweepReason.TRIALS_FAILED, "None of its 3 trials has a result."
    )
    assert without_result(begun, Standing(1, ended=[failed])) == Ending(
        SweepReason.TRIALS_FAILED, "Its trial has no result."
    )
    assert without_result(begun, Standing(2, ended=[failed, *complete(1.0)])) is None
    assert without_result(begun, Standing(2, ended=[failed, pruned])) is None
    assert without_result(begun, Standing()) is None
    assert without_result(begun, Standing(2, ended=[cancelled, cancelled])) == Ending(
        SweepReason.COMPLETED, "All have begun. None of its 2 trials has a result."
    )
    cost = Ending(SweepReason.MAX_COST, "1 USD is left.")
    assert without_result(cost, Standing(2, ended=[failed, failed])) == Ending(
        SweepReason.MAX_COST, "1 USD is left. None of its 2 trials has a result."
    )
    for kept in (Ending(SweepReason.CANCELLED, "Cancelled by ada."), Ending(SweepReason.TRIALS_FAILED, "All failed.")):
        assert without_result(kept, Standing(2, ended=[failed, failed])) == kept


def test_a_sweep_without_results_says_which_metrics_there_are() -> None:
    assert unreported("val_loss", ["train/loss", "val/loss"]) == (
        "No trial reported val_loss; they reported train/loss, val/loss: create a sweep with one of these as its "
        "objective."
    )
    assert unreported("x", list("abcdef")) == (
        "No trial reported x; they reported a, b, c, d, e, …: create a sweep with one of these as its objective."
    )
    assert unreported("x", ["y"]) == "No trial reported x; they reported y: create a sweep with it as its objective."
    assert unreported("x", []) == "No trial reported x; they reported no metric."


# --- money -----------------------------------------------------------------------------------------------------


def test_the_budget_is_divided_among_the_trials_that_may_begin() -> None:
    limits = replace(LIMITS, max_cost=Decimal(10))
    assert allotment(limits, Standing()) == Decimal(5)
    assert allotment(limits, Standing(1, 1, allotted=Decimal(5))) == Decimal(5)
    assert allotment(replace(limits, seeds=2), Standing()) == Decimal("2.5")
    one_ended = Standing(2, 1, complete(0.5, cost="1"), Decimal(5))
    assert allotment(limits, one_ended) == Decimal(4)


def test_no_trial_begins_with_less_than_one_has_cost() -> None:
    limits = replace(LIMITS, max_cost=Decimal(10))
    spent = complete(0.5, 0.6, 0.7, cost="3")
    assert allotment(limits, Standing(3, 0, spent)) is None
    assert reason(limits, Standing(3, 0, spent)) == "MAX_COST"
    assert reason(limits, Standing(4, 1, spent, Decimal("0.5"))) is None, "what is open may leave something"
    twice = replace(LIMITS, max_cost=Decimal(16), parallel=4)
    assert allotment(twice, Standing(3, 0, spent)) == Decimal("3.5"), "two of four, rather than four cut short"


@given(
    st.integers(1, 8),
    st.integers(1, 3),
    st.decimals("0.01", "50", places=2),
    st.decimals("0.001", "5", places=3),
    st.decimals("0", "5", places=3),
)
def test_a_trial_that_costs_the_median_is_never_cut_by_the_grace_that_is_kept_back(
    parallel: int, seeds: int, budget: Decimal, cost: Decimal, grace: Decimal
) -> None:
    limits = Limits("MIN", trials=100, parallel=parallel, seeds=seeds, max_cost=budget + cost)
    standing = Standing(1, 0, [(Told(Outcome.COMPLETE, 1.0), cost)], grace=grace)
    each = allotment(limits, standing)
    if each is not None:
        assert (each - grace) * seeds >= cost - Decimal("0.000001") * seeds, "of which the last step is rounding"
    else:
        assert budget < cost + grace * seeds
        found = ending(limits, standing)
        assert found is not None
        assert found.reason is SweepReason.MAX_COST


def test_before_a_price_is_known_one_trial_begins_whatever_the_dearest_machine_costs() -> None:
    limits = replace(LIMITS, max_cost=Decimal(8), parallel=4, trials=12)
    assert allotment(limits, Standing(grace=Decimal(3), is_priced=False)) == Decimal(4), "two, rather than four"
    assert allotment(limits, Standing(grace=Decimal(9), is_priced=False)) == Decimal(8), "it may get a cheaper one"
    assert allotment(limits, Standing(1, 1, allotted=Decimal(7), grace=Decimal(9), is_priced=False)) is None
    assert allotment(limits, Standing(grace=Decimal(9))) is None


def test_without_a_complete_trial_yet_one_still_has_more_than_its_grace() -> None:
    limits = replace(LIMITS, max_cost=Decimal(8), parallel=4, trials=12)
    cut = [(Told(Outcome.FAIL), Decimal(0))]
    assert allotment(limits, Standing(1, 0, cut, grace=Decimal(3))) == Decimal(4), "two, rather than four without time"


@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.decimals("0.01", "50", places=2),
    st.lists(st.tuples(st.decimals("0", "1", places=3), st.booleans()), max_size=60),
)
def test_whatever_trials_take_of_their_allotments_the_budget_is_never_exceeded(
    parallel: int, seeds: int, budget: Decimal, uses: list[tuple[Decimal, bool]]
) -> None:
    limits = Limits("MIN", trials=1000, parallel=parallel, seeds=seeds, max_cost=budget)
    ended: list[tuple[Told, Decimal]] = []
    open_: list[Decimal] = []  # what each open trial may cost
    for part, succeeds in uses:
        standing = Standing(len(ended) + len(open_), len(open_), ended, sum(open_, Decimal(0)))
        if slots(limits, standing) and (each := allotment(limits, standing)) is not None:
            open_.append(each * seeds)
        elif open_:
            outcome = Told(Outcome.COMPLETE, 1.0) if succeeds else Told(Outcome.FAIL)
            ended.append((outcome, open_.pop(0) * part))
        assert sum((cost for _, cost in ended), Decimal(0)) + sum(open_, Decimal(0)) <= budget


def test_what_is_left_takes_as_long_as_trials_have_taken() -> None:
    assert seconds_left(LIMITS, 4, 2, timedelta(seconds=10)) == 30
    assert seconds_left(LIMITS, 0, 2, None) is None
    assert seconds_left(LIMITS, 10, 0, timedelta(seconds=10)) is None


def test_every_reason_has_a_sentence() -> None:
    for limits, standing in (
        (replace(LIMITS, target=0.5), Standing(2, ended=complete(0.4))),
        (replace(LIMITS, patience=1), Standing(2, ended=complete(0.4, 0.5))),
        (replace(LIMITS, max_cost=Decimal("0.01")), Standing(2, ended=complete(0.4, cost="0.009"))),
        (LIMITS, Standing(10)),
        (replace(LIMITS, trials=1), Standing(1)),
    ):
        found = ending(limits, standing, "USD")
        assert found is not None
        assert found.reason in SweepReason
        assert found.sentence.endswith(".")
        assert not re.search(r"\b1 \w+s\b", found.sentence), found.sentence
