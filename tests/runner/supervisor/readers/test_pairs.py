"""Lines of names and numbers, which are read once their form has come three times with rising steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.supervisor.curve import Reading
from runner.supervisor.readers import stream
from runner.supervisor.readers.pairs import Pairs


def thrice(form: str, *values: float) -> str:
    return "".join(f"{form.format(n=number, v=value)}\n" for number, value in enumerate(values, 1))


@pytest.mark.parametrize(
    ("form", "metrics"),
    [
        ("step={n} loss={v}", {"loss"}),
        ("step: {n}, loss: {v}, lr: 1e-4", {"loss", "lr"}),
        ("step={n} val/loss={v} train/acc=0.7", {"val/loss", "train/acc"}),
        ("step={n} train/acc={v} val/loss=0.7", {"val/loss", "train/acc"}),
        ("step: {n} val/loss: {v} train/acc: 0.7", {"val/loss", "train/acc"}),
        ("epoch = {n} val/loss = {v} train/acc/top1 = 0.7", {"val/loss", "train/acc/top1"}),
        ("step={n} val/loss={v} images={n}1.5 images/s", {"val/loss"}),
        ("step {n} val/loss {v} train/acc 0.7", {"val/loss", "train/acc"}),
        ("step {n} val/loss {v} train/acc 0.7 val/top1 0.8", {"val/loss", "train/acc", "val/top1"}),
        ("step {n} loss {v} train/step_loss 0.7", {"loss", "train/step_loss"}),
        ("step {n} loss {v} acc 98.5 samples/sec", {"loss"}),
        ("step {n} loss {v} acc 98.5 tokens/s/gpu", {"loss"}),
        ("step {n} loss {v} acc 98.5 ms/step", {"loss"}),
        ("step {n} loss {v}", {"loss"}),
        ("epoch: {n} dice: {v}", {"dice"}),
        ("Epoch {n}/10 - train loss: {v}, val loss: {v}, acc: 81.2%, time: 3.2s", {"train loss", "val loss", "acc"}),
        ("Epoch [{n}/5], Step [100/600], Loss: {v}", {"Loss", "epoch"}),
        ("[{n},  2000] loss: {v}", {"loss", "epoch"}),
        ("iter {n}: loss {v}, time 500.10ms, mfu -100.00%", {"loss"}),
        ("step    {n}/1000 | train loss {v} | norm 3.2 | (100 ms | 999 tok/s)", {"train loss", "norm"}),
        ("2026-11-29 06:49:59,838 INFO train: step {n} loss {v}", {"loss"}),
        ("2026-11-29 06:49:59.838 | INFO     | __main__:train:12 - step {n} loss {v}", {"loss"}),
        ("INFO:__main__:epoch {n} loss {v}", {"loss"}),
        ("[2026-11-29 06:49:59] [INFO] global_step={n} train/loss={v}", {"train/loss"}),
        ("Episode {n} reward: {v} epsilon: 0.9", {"reward", "epsilon"}),
        ("step={n} energy_gap={v}", {"energy_gap"}),
        ("  {n}/100  loss: {v}", {"loss"}),
        ("[{n}] val_accuracy={v}", {"val_accuracy"}),
    ],
)
def test_a_line_with_a_step_is_read_from_its_third_time_on_the_held_ones_included(
    form: str, metrics: set[str], read: Any
) -> None:
    assert read(thrice(form, 0.5, 0.25)).points == {}
    result = read(thrice(form, 0.5, 0.25, 0.125, 0.0625))
    assert set(result.points) == metrics
    read_as = next(points for name, points in result.points.items() if points[1][1] == 0.25)
    assert [value for _, value in read_as] == [0.5, 0.25, 0.125, 0.0625]
    assert len(result.supervisor) == 1
    assert len(result.log) == 4


def test_a_form_whose_steps_do_not_rise_is_not_trusted(read: Any) -> None:
    assert read("step=1 loss=0.5\n" * 50).points == {}
    assert read("".join(f"step={step} loss=0.5\n" for step in (3, 2, 1) * 20)).points == {}


def test_a_counter_within_epochs_goes_on_from_the_end_of_the_last(read: Any) -> None:
    text = "".join(f"Epoch [{e}/2], Step [{s}/600], Loss: 0.5\n" for e in (1, 2) for s in (200, 400, 600))
    assert [step for step, _ in read(text).points["Loss"]] == [200, 400, 600, 800, 1000, 1200]
    whole = "".join(f"epoch {e} step {s} loss 0.5\n" for e, s in ((1, 10), (1, 20), (2, 30), (2, 40)))
    assert [step for step, _ in read(whole).points["loss"]] == [10, 20, 30, 40]


def test_values_that_are_not_finite_are_read(read: Any) -> None:
    assert read(thrice("step={n} loss={v}", 1.5, float("nan"), float("inf"))).points["loss"] == [
        (1, 1.5), (2, "NaN"), (3, "Infinity"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "form",
    [
        "12:30:{n}5 worker started",
        "step {n}: saving checkpoint to out/ckpt-{n}.pt (3.2GB)",
        "Epoch {n}/3",
        "Step {n}/9 : FROM python:3.{n}",
        "batch {n}: 128 samples in 3.2s",
        "step {n} took 3.{n} s",
        "step={n} time={v} eta=3.5 gpu=0 seed=42",
        "epoch={n} size=3.{n}GB port=8080",
        "iteration {n}: 9.1it/s",
        "step {n}: 127.0.0.1:8080",
        "step {n}: version v1.2.{n}",
        '  File "train.py", line {n}, in step',
        "ConvergenceWarning: Maximum iterations ({n}) reached, loss: https://example.org/{n}",
        "[{n}/34] Building CXX object foo.o",
        "Downloading ━━━━━━ 1.{n}/3.4 MB 5.6 MB/s eta 0:00:01",
        "model.safetensors:  5{n}%|█| 200M/400M [00:01<00:01, 150MB/s]",
        "frame=  {n}00 fps= 25 q=28.0 size=     256kB time=00:00:04.00 bitrate= 524.3kbits/s speed=1.2x",
        "loss_weight: 0.{n} max_steps: 100 train_batch_size: 3{n}",
        "64 bytes from 127.0.0.1: icmp_seq={n} ttl=64 time=0.03 ms",
        "| step | {n} | 3 |",
    ],
)
def test_times_sizes_addresses_versions_and_counters_are_never_metrics(form: str, read: Any) -> None:
    assert read(thrice(form, *(0.5 - n / 100 for n in range(40)))).points == {}


def test_lines_without_a_step_are_counted_with_a_pattern_that_reads_them(read: Any) -> None:
    text = "".join(f"loss: 0.{n}\n" for n in range(10, 22))
    count, example, advice = read(text).notices["LOOKS_LIKE_METRICS"]
    assert (count, example) == (12, "loss: 0.10")
    pattern = advice.split("--metrics-pattern '")[1].split("'")[0]
    assert pattern == r"loss: (?P<loss>\S+)"
    assert read(text, patterns=[pattern]).points["loss"] == [(n - 10, n / 100) for n in range(10, 22)]


def test_lines_with_a_step_that_came_too_seldom_are_counted_with_that_reason(read: Any) -> None:
    count, example, advice = read("step 1 loss 0.5\nstep 2 loss 0.4\n").notices["LOOKS_LIKE_METRICS"]
    assert (count, example) == (2, "loss 0.5")
    assert advice.startswith("Lines are read once 3 of them have had the same names, with rising steps.")
    assert "Lines without a step" not in advice


@pytest.mark.parametrize(
    ("form", "name", "pair"),
    [
        ("step {n} loss {v} acc 98.5 images/s", "acc", "acc 98.5 images/s"),
        ("step={n} loss={v} val/acc=98.5ms, lr=0.1", "val/acc", "val/acc=98.5ms"),
    ],
)
def test_a_metric_with_a_unit_in_a_line_that_is_read_is_named(form: str, name: str, pair: str, read: Any) -> None:
    result = read(thrice(form, *(n / 8 for n in range(9))))
    assert name not in result.points
    count, example, advice = result.notices["VALUES_UNUSABLE"]
    assert (count, example) == (6, pair)  # not of the three lines before
    assert advice.startswith(f"{name} (6): ")
    assert "unit" in advice


def test_rates_and_times_of_lines_that_are_read_are_not_complained_about(read: Any) -> None:
    form = "step {n}/100 | train loss {v} | 100.5 ms | 99.5 tok/s | time 3.5s | Error 2/3"
    assert read(thrice(form, *(n / 8 for n in range(9)))).notices == {}


def test_with_points_from_elsewhere_nothing_is_said_of_them(read: Any) -> None:
    assert read('{"a": 1}\nloss: 0.4\nloss: 0.5\n').notices == {}


def test_a_flood_of_candidates_is_sampled_and_that_is_said(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TEXT_BURST", 100)
    monkeypatch.setattr(stream, "TEXT_RATE", 0)
    result = read("".join(f"[{n}]\ttrain-rmse:0.{n}\n" for n in range(300)) + '{"step": 1, "loss": 0.5}\n')
    assert len(result.points["train-rmse"]) == 100
    assert result.points["loss"] == [(1, 0.5)]
    assert result.notices["SAMPLED"][0] == 200


PARTS = [
    "step {i}", "epoch {i}/{i}", "[{i}/{i}]", "Epoch: [{i}][ {i}/{i}]", "iter: {i},", "loss: {v}", "acc={v}",
    "loss {v}", "train loss: {v},", "layer.{i}.loss={v}", "acc{i}={v}", "f1 {v}%", "time {v}s", "x={i},{i}", "took {i}",
    "lr = {v}", "ret=[{v}]", "total_loss={v}", "a.py:{i}",
    "mem {i}MB", "at 12:{i}", "batch {i} of {i}", "norm {v}.", "{v}", "v{i}.{i}", "(eta {i}h)", "e{i}-{i}",
]  # fmt: skip
NUMBERS = st.sampled_from(["0", "7", "12", "123", "1234567890", "12345678901234567"])
VALUES = st.sampled_from(["0.5", "12", "1e-4", ".5", "1.", "-3", "nan", "inf", "1,234", "7.5.1", "0x1", "3:4"])


@given(st.data(), st.lists(st.lists(st.sampled_from(PARTS), min_size=2, max_size=5), min_size=1, max_size=3))
def test_a_template_reads_what_a_search_would_have_read(data: st.DataObject, layouts: list[list[str]]) -> None:
    with_templates, without = Pairs(), Pairs()
    for number in range(12):
        parts = layouts[number % len(layouts)]
        line = " ".join(
            part.replace("{v}", data.draw(VALUES)).replace("{i}", data.draw(NUMBERS) if number % 4 else str(number))
            for part in parts
        )
        without._templates.clear()
        assert _comparable(with_templates.read(line, 1.0)) == _comparable(without.read(line, 1.0)), line


def test_a_trusted_form_is_read_by_a_template() -> None:
    pairs = Pairs()
    lines = [f"epoch={number} loss=0.{number} lr=1e-4 acc=0.5" for number in range(1, 10)]
    assert sum(len(pairs.read(line, 1.0) or ()) for line in lines) == 9
    assert len(pairs._templates) == 1
    assert pairs._templates[0].pattern.fullmatch("epoch=77 loss=nan lr=3 acc=.25")


def _comparable(readings: list[Reading] | None) -> list[str] | None:
    return None if readings is None else [repr(reading) for reading in readings]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eta: 0:12:34  iter: {}  total_loss: 0.5  time: 0.24  max_mem: 1234M", {"total_loss": 0.5}),
        ("step {} rank_loss=0.5 packet_loss=2 total=7", {"rank_loss": 0.5, "packet_loss": 2.0}),
        ("I1129 06:49:59.838000 140000 train.py:12] epoch: {}, loss: 0.5", {"loss": 0.5}),
        ("I1129 06:49:59.838 123 solver.cpp:239] Iteration {}, loss = 0.5", {"loss": 0.5}),
        ("I1129 06:49:59.838000 140000 writer.py:48] [{}] acc=0.25, loss=0.5", {"acc": 0.25, "loss": 0.5}),
        ("2026-11-29 06:49:59 epoch: {}, loss: 0.5", {"loss": 0.5}),
        ("INFO step: {} loss: 0.5", {"loss": 0.5}),
        ("trainer.rs:7 step {} loss 0.5", {"loss": 0.5}),
        ("loss: inf step {}", {"loss": "Infinity"}),
        ("acc: 0.5 loss: -Infinity epoch {}", {"acc": 0.5, "loss": "-Infinity"}),
        ("iteration {}/ 9 | consumed samples: 160 | lm loss: 5E-01 | number of nan iterations: 0 |", {"loss": 0.5}),
        ("global_step={}, episodic_return=[9.]", {"episodic_return": 9.0}),
        ("step {} loss=[0.5, 0.25]", {}),
        ("step {} loss 0,25", {}),
        ("step {} loss=0,25", {}),
    ],
)  # fmt: skip
def test_totals_source_lines_arrays_and_decimal_commas(line: str, expected: dict[str, float], read: Any) -> None:
    result = read("".join(f"{line.format(step)}\n" for step in range(1, 5)))
    assert result.points == {name: [(step, value) for step in range(1, 5)] for name, value in expected.items()}
