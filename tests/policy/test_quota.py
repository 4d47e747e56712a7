"""Quotas: what they admit, in which order, and the sentence for the rest."""

from __future__ import annotations

import pytest

from policy.quota import Quota, admitted, used_after

VISION, AUDIO = 1, 2


def test_starts_are_judged_in_their_order_and_count_for_those_behind_them() -> None:
    quotas = {VISION: Quota("vision", 4, 1)}
    starts = [(VISION, 2), (VISION, 2), (AUDIO, 8), (VISION, 1), (VISION, 0), (VISION, 1)]
    assert admitted(starts, quotas) == [True, False, True, True, True, False]
    assert quotas[VISION].used == 1, "what is passed stays as it is"


def test_without_quotas_everything_is_admitted() -> None:
    assert admitted([(VISION, 10_000), (AUDIO, 0)], {}) == [True, True]


def test_above_a_lowered_quota_only_what_needs_no_gpu_starts() -> None:
    assert admitted([(VISION, 1), (VISION, 0)], {VISION: Quota("vision", 2, 5)}) == [False, True]
    assert admitted([(VISION, 1), (VISION, 0)], {VISION: Quota("vision", 0, 0)}) == [False, True]


def test_starts_count_as_used() -> None:
    after = used_after([(VISION, 2), (AUDIO, 1), (VISION, 1)], {VISION: Quota("vision", 4, 1)})
    assert after == {VISION: Quota("vision", 4, 4)}


@pytest.mark.parametrize(
    ("quota", "gpus", "sentence"),
    [
        (Quota("vision", 4, 3), 2, "The project vision uses 3 of its quota of 4 GPUs, and this needs 2."),
        (Quota("vision", 1, 0), 2, "It needs 2 GPUs: the quota of the project vision is 1 GPU at once."),
        (Quota("a\x1b[2Jb", 1, 1), 1, "The project a\ufffd[2Jb uses 1 of its quota of 1 GPU, and this needs 1."),
    ],
)
def test_the_sentence_names_the_project_its_quota_and_the_need(quota: Quota, gpus: int, sentence: str) -> None:
    assert quota.refusal(gpus) == sentence
