"""Stop rules as JSON: what is written is read back, with what stands beside it in the row."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from policy.rule_documents import VERSION, Declared, counting_after, decode, encode
from policy.stopping import StopRules

FINITE = st.floats(allow_nan=False, allow_infinity=False)
RULES = st.builds(
    StopRules, metric=st.text(min_size=1), mode=st.sampled_from(["MIN", "MAX"]), min_delta=FINITE,
    patience=st.none() | st.integers(0, 10**9), grace_period=st.integers(0, 2**53),
    stopping_threshold=st.none() | FINITE, divergence_threshold=st.none() | FINITE, check_finite=st.booleans(),
    smoothing=FINITE, plateau=st.booleans(), rising=st.booleans(), aggressive=st.booleans(), max_steps=st.just(7),
)  # fmt: skip
DECLARED = st.builds(
    Declared, RULES, dry_run=st.booleans(), since_step=st.none() | st.integers(0, 2**53),
    since_attempt=st.none() | st.integers(1, 2**31),
)  # fmt: skip


@given(DECLARED)
def test_rules_are_read_back_as_they_were_written(declared: Declared) -> None:
    document = json.loads(json.dumps(encode([declared, declared])))
    assert document["version"] == VERSION
    assert decode(document, objective=declared.rules.metric, max_steps=7) == (declared, declared)


def test_only_what_differs_from_the_defaults_is_kept_and_always_the_direction() -> None:
    assert encode([Declared(StopRules("loss", patience=3))])["rules"] == [
        {"metric": "loss", "mode": "MIN", "patience": 3}
    ]


def test_values_that_are_not_finite_stop_for_the_objective_alone() -> None:
    document = encode([Declared(StopRules("loss")), Declared(StopRules("acc", "MAX"))])
    found = decode(document, objective="acc", max_steps=None)
    assert [each.rules.check_finite for each in found] == [False, True]


def test_rules_count_after_the_newest_steps_of_what_was_reported() -> None:
    document = encode([Declared(StopRules("loss"), since_step=3), Declared(StopRules("acc", "MAX"), since_step=3)])
    again = counting_after({**document, "halving": {"metric": "loss"}}, {"loss": 7}, 2)
    assert again["halving"] == {"metric": "loss"}
    found = decode(again, objective="loss", max_steps=None)
    assert [(each.since_step, each.since_attempt) for each in found] == [(7, 2), (None, None)]
    assert [each["metric"] for each in document["rules"]] == ["loss", "acc"]
    assert document["rules"][0]["since_step"] == 3, "what it was made of is left as it is"


def test_no_document_has_no_rules_and_unknown_keys_are_ignored() -> None:
    assert decode(None, objective=None, max_steps=None) == ()
    document = {"version": 2, "rules": [{"metric": "loss", "mode": "MIN", "invented": 1}]}
    [declared] = decode(document, objective="loss", max_steps=5)
    assert declared == Declared(StopRules("loss", max_steps=5))
    assert {each.name for each in fields(StopRules)} >= {"metric", "mode"}
