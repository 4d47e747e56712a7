"""Dependencies: conditions, what follows an end, orders and cycles, against a slow twin on random graphs."""

from __future__ import annotations

import random

import pytest

from policy.dependencies import (
    Cycle,
    DependencyCondition,
    Edge,
    consequences,
    is_met,
    never,
    order,
    waits_for,
)

SUCCESS, FAILURE, ANY = DependencyCondition.SUCCESS, DependencyCondition.FAILURE, DependencyCondition.ANY


def test_each_end_meets_a_condition_or_rules_it_out() -> None:
    assert [is_met(each, succeeded=True) for each in (SUCCESS, FAILURE, ANY)] == [True, False, True]
    assert [is_met(each, succeeded=False) for each in (SUCCESS, FAILURE, ANY)] == [False, True, True]


def test_a_failure_fails_those_that_wait_for_success_and_those_behind_them() -> None:
    edges = [
        Edge(2, 1, SUCCESS), Edge(3, 2, SUCCESS), Edge(4, 2, ANY), Edge(5, 2, FAILURE), Edge(5, 3, ANY),
        Edge(6, 1, ANY), Edge(7, 4, SUCCESS), Edge(8, 1, FAILURE), Edge(8, 9, SUCCESS),
    ]  # fmt: skip
    found = consequences(1, edges, succeeded=False)
    assert [each.simulation_id for each in found.failed] == [2, 3]
    assert found.met == {4: 1, 5: 2, 6: 1, 8: 1}, "7 waits for 4, which has not ended"


def test_a_success_meets_conditions_and_fails_what_waits_for_a_failure() -> None:
    found = consequences(1, [Edge(2, 1, SUCCESS), Edge(3, 1, FAILURE), Edge(4, 3, SUCCESS)], succeeded=True)
    assert (found.met, [each.simulation_id for each in found.failed]) == ({2: 1}, [3, 4])


def test_one_condition_that_can_not_be_met_is_enough() -> None:
    found = consequences(1, [Edge(3, 1, FAILURE), Edge(2, 1, SUCCESS), Edge(3, 2, ANY)], succeeded=False)
    assert [each.simulation_id for each in found.failed] == [2]
    assert found.met == {3: 2}
    edges = [Edge(3, 1, ANY), Edge(3, 2, SUCCESS), Edge(2, 1, SUCCESS)]
    found = consequences(1, edges, succeeded=False)
    assert (found.met, [each.simulation_id for each in found.failed]) == ({}, [2, 3])


def test_the_order_has_each_behind_those_it_comes_after_and_changes_no_more_than_that() -> None:
    assert order([[], [], []]) == [0, 1, 2]
    assert order([[2], [], [1]]) == [1, 2, 0]
    assert order([[1, 2], [2], []]) == [2, 1, 0]
    assert order([]) == []


@pytest.mark.parametrize("length", [1, 2, 3, 1000])
def test_a_cycle_is_found_however_long(length: int) -> None:
    after: list[list[int]] = [[(number + 1) % length] for number in range(length)]
    with pytest.raises(Cycle) as found:
        order([[], *[[each + 1 for each in of] for of in after]])
    assert sorted(found.value.path) == list(range(1, length + 1))


def test_a_chain_of_a_thousand_is_ordered_whichever_way_it_is_written() -> None:
    assert order([[number + 1] for number in range(999)] + [[]]) == list(range(999, -1, -1))
    assert order([[]] + [[number] for number in range(999)]) == list(range(1000))


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_are_ordered_and_judged_as_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randrange(2, 12)
    names = chance.sample(range(count), count)
    after = [[names[other] for other in range(names.index(each)) if chance.random() < 0.4] for each in range(count)]
    places = order(after)
    assert sorted(places) == list(range(count))
    assert all(places.index(other) < places.index(each) for each in range(count) for other in after[each])

    edges = [
        Edge(each, other, chance.choice([SUCCESS, FAILURE, ANY]))
        for each in range(1, count)
        for other in range(each)
        if chance.random() < 0.4
    ]
    succeeded = chance.random() < 0.5
    found = consequences(0, edges, succeeded=succeeded)
    ends = {0: succeeded}
    for _ in range(count):  # until nothing more follows
        for each in range(1, count):
            mine = [edge for edge in edges if edge.simulation_id == each and edge.after_id in ends]
            if any(not is_met(edge.condition, succeeded=ends[edge.after_id]) for edge in mine):
                ends[each] = False
    failed = {each for each in ends if each}
    assert {each.simulation_id for each in found.failed} == failed
    expected = {
        each: number
        for each in range(1, count)
        if each not in failed
        and (number := sum(edge.simulation_id == each and edge.after_id in ends for edge in edges))
    }
    assert found.met == expected


def test_sentences_name_what_is_waited_for() -> None:
    assert waits_for("prep", "RUNNING", SUCCESS, others=0) == "It waits for the success of prep, which is RUNNING."
    told = waits_for("prep", "QUEUED", ANY, others=1200)
    assert told == "It waits for the end of prep, which is QUEUED, and for 1,200 others."
    assert waits_for("a\nb" + "x" * 90, "QUEUED", FAILURE, others=1).count("\n") == 0
    told = never("prep", "FAILED", "EXIT_CODE", SUCCESS)
    assert told == "It was to run after the success of prep, which ended FAILED (EXIT_CODE)."
