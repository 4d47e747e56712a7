"""What is learned from ended runs."""

from __future__ import annotations

import pytest

from policy.learning import BINS, FIRST_BIN, Counts, Learned, bin_of, end_of_bin, hazards_of, values_of


@pytest.mark.parametrize(
    ("service", "number"), [(0, 0), (599.9, 0), (600, 1), (1199, 1), (1200, 2), (2399, 2), (2400, 3), (1e30, BINS - 1)]
)
def test_a_bin_ends_where_service_has_doubled(service: float, number: int) -> None:
    assert bin_of(service) == number
    assert service >= 1e30 or service < end_of_bin(number)


def test_without_data_about_one_and_a_half_widths_are_expected_so_the_order_is_by_attained_service() -> None:
    values = Learned().values(())
    assert values[0] == pytest.approx(1.5 * FIRST_BIN)
    assert values[5] == pytest.approx(1.5 * FIRST_BIN * 2**4)
    assert list(values[:-1]) == sorted(values[:-1])


def test_the_hazard_is_the_share_that_ended_of_those_that_reached_a_bin() -> None:
    counts = Counts(ended=(3, 1, *[0] * 23), unfinished=(2, 4, *[0] * 23))
    hazards = hazards_of(counts, (0.5,) * BINS, 10)
    assert hazards[0] == pytest.approx((3 + 5) / (3 + 1 + 4 + 2 / 2 + 10))
    assert hazards[1] == pytest.approx((1 + 5) / (1 + 4 / 2 + 10))
    assert hazards[2] == 0.5


def test_a_value_looks_beyond_bins_in_which_few_end() -> None:
    hazards = (0.0, 1.0, *[1.0] * 23)
    assert values_of(hazards)[0] == pytest.approx(600 + 300)  # through the first bin, and half of the second


def test_a_class_with_few_runs_borrows_from_the_more_general_one() -> None:
    long = Counts(ended=(*[0] * 10, 50, *[0] * 14))
    learned = Learned({(): long, "project": long, "fresh": Counts()})
    assert learned.value(("project", "fresh"), 0) == pytest.approx(learned.value(("project",), 0), rel=0.01)
    assert learned.value(("project",), 0) > 20 * Learned().value((), 0)
    assert learned.value(("unknown",), 0) == pytest.approx(learned.value((), 0))
