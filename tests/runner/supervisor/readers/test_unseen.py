"""Forms of programs that have no reader of their own: what they print is read by rule.

Each text is written after the format of the program that names it.
"""

from __future__ import annotations

from typing import Any

import pytest

Steps = list[int]


def lines(form: str, count: int = 5) -> str:
    """Lines numbered from 1: {n}, {t} a hundred times as many, {v} a value that falls."""
    return "".join(form.format(n=n, t=100 * n, v=f"{1 / (n + 1):.4f}") + "\n" for n in range(1, count + 1))


def nested(form: str, epochs: Any, batches: Any, end: str = "") -> str:
    """Lines of batches within epochs: {e} and {b}."""
    return "".join(
        "".join(form.format(e=epoch, b=batch) + "\n" for batch in batches) + end.format(e=epoch) for epoch in epochs
    )


def same(metrics: tuple[str, ...], steps: Steps) -> dict[str, Steps]:
    return dict.fromkeys(metrics, steps)


EACH, HUNDREDS = [1, 2, 3, 4, 5], [100, 200, 300, 400, 500]
SOME = (0, 40, 80)
OVER_EPOCHS = [0, 40, 80, 100, 140, 180]
FORMS: dict[str, tuple[str, dict[str, Steps]]] = {
    "torchvision": (
        nested(
            "Epoch: [{e}]  [{b:>3}/100]  eta: 0:12:03  loss: 0.5 (7.01)  acc1: 0.1 (0.1)  time: 0.5", (0, 1), SOME
        ),
        {"loss": OVER_EPOCHS, "acc1": OVER_EPOCHS, "epoch": OVER_EPOCHS},
    ),
    "timm": (
        nested(
            "Train: {e} [{b:>4}/100 ({b:>3}%)]  Loss: 0.55 (6.95)  Time: 1.2s,  211.00/s  LR: 1e-06", (0, 1), SOME
        ),
        {"Loss": OVER_EPOCHS, "LR": OVER_EPOCHS},
    ),
    "word_language_model": (
        nested(
            "| epoch {e:3d} | {b:5d}/ 3000 batches | lr 20.00 | ms/batch 12.34 | loss  7.62 | ppl  2039.10",
            (1, 2, 3), (1000, 2000), "| end of epoch {e:3d} | time: 12.3s | valid loss  5.5 | valid ppl   244.7\n",
        ),
        {
            **same(("loss", "ppl", "epoch"), [1000, 2000, 4000, 5000, 7000, 8000]),
            **same(("valid loss", "valid ppl"), [1, 2, 3]),
        },
    ),
    "dcgan": (
        nested("[{e}/25][{b}/500] Loss_D: 1.2 Loss_G: 3.4 D(x): 0.5 D(G(z)): 0.1 / 0.05", (0, 1), (0, 200, 400)),
        same(("Loss_D", "Loss_G", "epoch"), [0, 200, 400, 500, 700, 900]),
    ),
    "super_resolution": (
        nested("===> Epoch[{e}]({b}/20): Loss: 0.3", (1, 2), (10, 20)),
        same(("Loss", "epoch"), [10, 20, 30, 40]),
    ),
    "vae": (
        lines("====> Epoch: {n} Average loss: {v}\n====> Test set loss: {v}"),
        {"Average loss": EACH, "Test loss": EACH},
    ),
    "transfer_learning": (
        lines("Epoch {n}/24\n----------\ntrain Loss: {v} Acc: 0.76\nval Loss: 0.21 Acc: {v}\n"),
        {"train Loss": EACH, "Acc": EACH, "val Loss": EACH, "val Acc": EACH},
    ),
    "quickstart": (
        "".join(
            f"Epoch {epoch}\n-------------------------------\n"
            + "".join(f"loss: 2.{9 - n}  [{n * 100:>5d}/300]\n" for n in range(3))
            + f"Test Error: \n Accuracy: {40 + epoch}.9%, Avg loss: 2.1 \n\n"
            for epoch in (1, 2, 3)
        ),
        {
            **same(("loss", "epoch"), [0, 100, 200, 300, 400, 500, 600, 700, 800]),
            **same(("Accuracy", "Avg loss"), [1, 2, 3]),
        },
    ),
    "time_sequence": (lines("STEP:  {n}\nloss: {v}\ntest loss: {v}"), {"loss": EACH, "test loss": EACH}),
    "megatron": (
        lines(
            " [2026-11-29 06:49:59] iteration       {t}/     999 | consumed samples:       2560 | lm loss: 7.0E+00 |"
            " number of nan iterations:   0 |"
        ),
        {"loss": HUNDREDS},
    ),
    "deepspeed's pipeline": (
        lines("steps: {t} loss: {v} iter time (s): 0.512 samples/sec: 123.4"),
        {"loss": HUNDREDS},
    ),
    "estimator": (
        lines("INFO:tensorflow:Saving dict for global step {t}: accuracy = 0.9, global_step = {t}, loss = {v}"),
        {"accuracy": HUNDREDS, "loss": HUNDREDS},
    ),
    "mxnet": (
        lines("INFO:root:Epoch[{n}] Train-accuracy={v}\nINFO:root:Epoch[{n}] Time cost=3.2"),
        {"Train-accuracy": EACH},
    ),
    "flair": (
        lines("2026-11-29 06:49:59,838 epoch 1 - iter {t}/1000 - loss {v} - time (sec): 1.2 - samples/sec: 123.4"),
        {"loss": HUNDREDS, "epoch": HUNDREDS},
    ),
    "flax": (
        lines("train epoch: {n}, loss: {v}, accuracy: 93.50\neval epoch: {n}, loss: {v}, accuracy: 91.50"),
        {"loss": EACH, "accuracy": EACH, "eval loss": EACH, "eval accuracy": EACH},
    ),
    "a description of tqdm": (
        "".join(f"Epoch 1 loss: 0.{n}:  {n}0%|###   | {n}0/100 [00:0{n}<00:05,  9.1it/s]\n" for n in (1, 2, 3)),
        {"loss": [10, 20, 30]},
    ),
    "torchtune": (
        "1|10|Loss: 1.2345: 10%|#         | 10/100 [00:10<01:30,  1.00s/it]\n",
        {"Loss": [10]},
    ),
    "allennlp": (
        "accuracy: 0.5123, loss: 0.6931 ||: 100%|##########| 10/10 [00:01<00:00,  9.33it/s]\n",
        {"accuracy": [10], "loss": [10]},
    ),
    "dates of the United States": (
        lines("11/29/2026 06:49:59 - INFO - __main__ -   step {n} loss {v}"),
        {"loss": EACH},
    ),
    "XGBoost behind a clock": (lines("[06:49:59] [{n}]\ttrain-rmse:{v}"), {"train-rmse": EACH}),
    "two sets on a line": (
        lines("Epoch {n} | Train: loss={v}, acc=0.9 | Val: loss={v}, acc=0.8"),
        {"Train/loss": EACH, "Train/acc": EACH, "Val/loss": EACH, "Val/acc": EACH},
    ),
    "two sets without labels": (
        lines("epoch {n}: train loss 0.5, acc 0.6; val loss {v}, acc 0.7"),
        {"train loss": EACH, "train acc": EACH, "val loss": EACH, "val acc": EACH},
    ),
    "humps": (
        lines("Step {n}: trainLoss={v} valLoss={v} stepTime=0.3 tokensPerSec=33"),
        {"trainLoss": EACH, "valLoss": EACH},
    ),
    "no mark but a metric's": (
        lines("{n}/100 loss {v} acc 0.5\nround {n} score {v}"),
        {"loss": EACH, "acc": EACH, "score": EACH},
    ),
    "a table at the margin": (
        "Iter  Train Loss  Remaining Time\n1  1.7354  0.02s\n2  1.5  0.01s\n",
        {"Train Loss": [1, 2]},
    ),
    "TAO": (
        "  0 TAO,  Function value: 24.2,  Residual: 232.868 \n  1 TAO,  Function value: 4.2,  Residual: 2.868 \n",
        {"TAO Function value": [0, 1], "TAO Residual": [0, 1]},
    ),
    "YOLOv5": (
        "      Epoch   gpu_mem       box       obj       cls    labels  img_size\n"
        "       0/2      1.2G   0.0412   0.0612    0.021       123       640: 100%|##| 10/10 [00:03<00:00,  3.1it/s]\n"
        "             Class     Images     Labels          P          R     mAP@.5 mAP@.5:.95: 100%|##| 4/4 [00:01]\n"
        "                 all        128        929      0.571      0.612      0.622      0.401\n",
        same(("box", "obj", "cls", "P", "R", "mAP@.5", "mAP@.5:.95"), [0]),
    ),
    "a test before the first epoch": (
        "Test set: Average loss: 2.3, Accuracy: 980/10000 (10%)\n"
        + nested(
            "Train Epoch: {e} [{b}/100 (0%)]\tLoss: 0.3",
            (1, 2), (0, 50), "Test set: Average loss: 0.1, Accuracy: 9/10 (98%)\n",
        ),
        {"Loss": [0, 50, 100, 150], "Average loss": [100, 200], "Accuracy": [100, 200]},
    ),
    "a validation that counts for itself": (
        nested("Epoch {e} step {b}/100 loss 0.5", (1, 2, 3), (50, 100), "Epoch {e} step 20/20 val_loss 0.5\n"),
        {"loss": [50, 100, 150, 200, 250, 300], "val_loss": [20, 40, 60], "epoch": [50, 100, 150, 200, 250, 300]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_a_reader_of_its_own_is_read(name: str, read: Any) -> None:
    text, expected = FORMS[name]
    result = read(text)
    assert {metric: [step for step, _ in points] for metric, points in result.points.items()} == expected
    assert result.notices == {}


@pytest.mark.parametrize(
    "label",
    [
        "[{rank}] ",
        "[prterun-host-12@1,{rank}]<stdout>: ",
        "2026-11-29T10:00:00.000Z [rank{rank}]: ",
        "[default{rank}]:[rank{rank}]: ",
    ],
)
def test_rank_0_counts_behind_the_labels_of_other_launchers(label: str, read: Any) -> None:
    text = "".join(
        f'{label.format(rank=rank)}{{"step": {step}, "loss": {rank}.5}}\n' for step in range(3) for rank in (0, 1)
    )
    result = read(text)
    assert result.points == {"loss": [(0, 0.5), (1, 0.5), (2, 0.5)]}
    assert result.notices["HIGHER_RANK"][0] == 3
    assert set(result.notices) == {"HIGHER_RANK"}


def test_text_behind_a_time_and_a_label_is_of_that_rank(read: Any) -> None:
    text = "".join(f"2026-11-29T10:00:00Z [rank{rank}]: step {n} loss {rank}.5\n" for n in range(4) for rank in (0, 1))
    result = read(text)
    assert result.points == {"loss": [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5)]}
    assert set(result.notices) == {"HIGHER_RANK"}


@pytest.mark.parametrize("written", ["nan", "-nan", "NAN", "Nan", "inf", "-INF", "Infinity", "+inf", "-infinity"])
def test_values_that_are_not_finite_in_each_spelling(written: str, read: Any) -> None:
    value = "NaN" if "nan" in written.lower() else "-Infinity" if written.startswith("-") else "Infinity"
    text = "".join(f"step {n} loss: {written}\n[{n}]\ttrain-rmse:{written}\n" for n in (1, 2, 3))
    assert read(text).points == {name: [(n, value) for n in (1, 2, 3)] for name in ("loss", "train-rmse")}


@pytest.mark.parametrize(
    "form",
    [
        "make[{n}]: *** [Makefile:12: all] Error 2",
        "Iteration {n}: return 0",
        "Epoch {n}\nreturn 0\nError 2\ntest 3",
        "Step {n}/10 : ENV A=1",
        "Iter   Used   Free\n{n}   12   34",
        "Epoch {n}/5\nsaved model.keras (3.2MB)\nlr: 1e-4\nTime: 3.2s",
        "#{t}\tNEW    cov: 123 ft: 456 corp: 12/345b lim: 4 exec/s: 1234 rss: 45Mb L: 3/3",
        "[Stage {n}:>   (0 + 4) / 10] error 3",
        "Accuracy: 98% [{t}/10000]",
        "correct: [{t}/10000] score 1.5",
        "Iteration   {n}: 123.456 ops/s",
        "[{t}] x=1 y=2",
        "Loading checkpoint shards:  50%|#####     | {n}/9 [00:05<00:05, 2.5s/it]",
        "model.safetensors: 5{n}%|#####     | 2.5G/5.0G [00:12<00:12, 201MB/s]",
        "[2026-11-29 06:49:59,838] [INFO] [timer.py:260:stop] epoch=0/micro_step={t}/global_step={t}, "
        "RunningAvgSamplesPerSec=123.4, CurrSamplesPerSec=120.3",
        "2026-11-29 10:00:00 [{n}/9] FAILED error 104",
    ],
)
def test_what_looks_like_a_form_and_is_none(form: str, read: Any) -> None:
    assert read(lines(form, 12)).points == {}


@pytest.mark.parametrize(
    "line",
    [
        '{{"status": "Downloading", "progressDetail": {{"current": {t}, "total": 5678}}, "id": "9a1b"}}',
        '{{"remote_addr": "127.0.0.1", "status": 200, "body_bytes_sent": {t}, "request_time": 0.003}}',
        '{{"path": "/metrics", "method": "GET", "count": {n}}}',
        '{{"version": {n}}}',
        '{{"offset": {t}, "bytes": 3}}',
    ],
)
def test_records_of_requests_and_downloads_are_log(line: str, read: Any) -> None:
    result = read(lines(line))
    assert (result.points, result.notices) == ({}, {})


def test_lines_that_repeat_themselves_are_not_searched(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "2026-11-29 06:49:12,838 INFO server: handled request {n} of worker 3 in 0.25 s"
    assert read(lines(line, 400)).looked_at == 1
    assert read(
        lines(line, 400) + "step 1 loss 0.5\nstep 2 loss 0.25\nstep 3 loss 0.125\n" + lines(line, 400)
    ).points == {"loss": [(1, 0.5), (2, 0.25), (3, 0.125)]}
