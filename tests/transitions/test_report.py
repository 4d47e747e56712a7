"""Validation of reports: notices. That of points, logs and exits: `tests/graph/types/test_supervision.py`."""

from __future__ import annotations

import pytest

from db.notices import Notice
from transitions.report import BadReport, checked


@pytest.mark.parametrize(
    "notices", [[Notice("lower", 1, "", "")], [Notice("X" * 41, 1, "", "")], [Notice("A", 0, "", "")],
                [Notice(f"K{n}", 1, "", "") for n in range(51)]]
)  # fmt: skip
def test_notices_that_break_a_rule_are_refused(notices: list[Notice]) -> None:
    with pytest.raises(BadReport) as refused:
        checked(1, None, (), None, notices)
    assert refused.value.field == "facts"
