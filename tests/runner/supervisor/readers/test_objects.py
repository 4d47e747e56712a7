"""Objects on a line: JSON, several of them, nested, behind labels; dicts; what was nearly one."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_several_objects_on_one_line_are_several_points(read: Any) -> None:
    result = read('{"step": 1, "a": 1}{"step": 2, "a": 2} {"step": 3, "a": 3}\n\n')
    assert result.points == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}
    assert result.log == [""]


def test_an_array_of_objects_is_several_points(read: Any) -> None:
    result = read('[{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]\n[]\n[{"id": 3, "size": 4}]\n[{"step": 3}\n')
    assert result.points == {"loss": [(1, 0.5), (2, 0.25)]}
    assert result.log == ["[]", '[{"id": 3, "size": 4}]', '[{"step": 3}']


@pytest.mark.parametrize(
    "line",
    [
        '{"timestamp": "2026-11-29", "severity": "INFO", "message": "x", "latency_ms": 12, "error": 0}',
        '{"Time": "2026", "Action": "pass", "Test": "TestX", "Elapsed": 0.01}',
        '{"reason": "compiler-artifact", "fresh": true, "profile": {"opt_level": "0", "debuginfo": 2}}',
        '{"duration": 1.5, "pid": 7}',
    ],
)
def test_times_sizes_and_codes_of_structured_logs_are_no_points(line: str, read: Any) -> None:
    assert read(f"{line}\n" * 3).points == {}
    assert read(f"{line}\n" * 3).notices == {}
    assert read('{"message": "epoch done", "loss": 0.5, "error": 0.1}\n').points == {
        "loss": [(0, 0.5)], "error": [(0, 0.1)],
    }  # fmt: skip


@pytest.mark.parametrize(
    "label", ["[rank0]:", "[rank0]: ", "[default0]:", "0: ", "[1,0]<stdout>:", "2026-11-29T06:49:59.838Z ", "\ufeff",
              "INFO:root:", "2026-11-29 06:49:59,838 INFO train: ", "trainer-1  | "]
)  # fmt: skip
def test_a_label_in_front_of_an_object_is_taken_off(label: str, read: Any) -> None:
    result = read("".join(f'{label}{{"step": {step}, "loss": 0.5}}\n' for step in range(5)))
    assert result.points == {"loss": [(step, 0.5) for step in range(5)]}
    assert result.log == []
    assert set(result.notices) == ({"BYTE_ORDER_MARK"} if label == "\ufeff" else set())


def test_higher_ranks_are_log_with_a_notice(read: Any) -> None:
    result = read("".join(f'[rank{rank}]: {{"step": 1, "loss": {rank}}}\n' for rank in range(3)))
    assert result.points == {"loss": [(1, 0.0)]}
    assert result.notices["HIGHER_RANK"][0] == 2
    assert "rank 1 (1), rank 2 (1)" in result.notices["HIGHER_RANK"][2]


def test_an_unknown_prefix_is_log_with_a_notice(read: Any) -> None:
    result = read('worker-7> {"step": 1, "loss": 0.5}\n' * 5)
    assert result.points == {}
    assert result.notices["UNKNOWN_PREFIX"][:2] == (5, 'worker-7> {"step": 1, "loss": 0.5}')
    assert read('POST /api {"user": 3}\n' * 5).notices == {}


def test_what_stands_behind_the_last_carriage_return_is_the_line(read: Any) -> None:
    result = read('\r 20%...\r 40%...{"step": 4, "loss": 0.2}\n\r 60%\r{"step": 5, "loss": 0.1}\r\n')
    assert result.points == {"loss": [(4, 0.2), (5, 0.1)]}
    assert result.log == []


def test_nested_names_are_joined(read: Any) -> None:
    assert read('{"step": 3, "train": {"loss": 0.5, "acc": {"top1": 0.1}}, "val": {}}\n').points == {
        "train/loss": [(3, 0.5)], "train/acc/top1": [(3, 0.1)],
    }  # fmt: skip


def test_a_step_as_text_is_a_step_with_a_notice(read: Any) -> None:
    result = read('{"step": "7", "loss": 0.5}\n{"step": 8.0, "loss": 0.4}\n')
    assert result.points == {"loss": [(7, 0.5), (8, 0.4)]}
    assert result.notices["STEP_AS_TEXT"][0] == 1


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"step":6,"trial":1,}', "NEARLY_JSON"),
        ("{step: 6, loss: 1}", "NEARLY_JSON"),
        ('{"step": 6, "loss": .5}', "NEARLY_JSON"),
        ('{"step": 6, "loss": 0.5} and more', "NEARLY_JSON"),
        ('{"step":1.5,"loss":1}', "STEP_UNUSABLE"),
        ('{"step":-1,"loss":1}', "STEP_UNUSABLE"),
        ('{"step":"x","loss":1}', "STEP_UNUSABLE"),
        ('{"step":1,"loss":"low"}', "VALUES_UNUSABLE"),
        ('{"step":1,"":1}', "NAME_UNUSABLE"),
    ],
)
def test_what_was_nearly_a_point_is_log_with_one_notice(line: str, kind: str, read: Any) -> None:
    result = read(f"{line}\n" * 3)
    assert result.points == {}
    assert result.log == [line] * 3
    assert {kind: notice[:2] for kind, notice in result.notices.items()} == {kind: (3, line)}
    assert result.notices[kind][2]


def test_steps_that_do_not_rise_are_counted_by_metric(read: Any) -> None:
    result = read('{"step":10,"dup":1}\n{"step":10,"dup":2}\n{"step":5,"dup":3}\n')
    assert result.points == {"dup": [(10, 1.0)]}
    count, example, advice = result.notices["NOT_RISING"]
    assert (count, example) == (2, '{"step":10,"dup":2}')
    assert advice.startswith("dup (2): Steps of a metric must rise")
    assert "dup: 5 after 10." in advice


def test_metrics_beyond_the_limit_are_named_in_a_notice(read: Any) -> None:
    line = json.dumps({f"m{number}": number for number in range(1_200)})
    result = read(f"{line}\n" * 20)
    assert len(result.points) == 1_000
    count, _, advice = result.notices["TOO_MANY_METRICS"]
    assert count == 200 * 20
    assert advice.startswith("m1000 (20), m1001 (20)")
    assert "and 195 more" in advice


def test_structured_logs_are_no_points(read: Any) -> None:
    lines = (
        '{"level":30,"time":1531171074631,"msg":"hello world","pid":657,"hostname":"x"}\n'
        '{"severity":"INFO","message":"listening","port":8080}\n'
    )
    assert read(lines).points == {}
    assert read('{"level":"info","msg":"trained","step":3,"loss":0.5}\n').points == {
        "loss": [(3, 0.5)],
    }


@pytest.mark.parametrize(
    ("line", "points"),
    [
        ("{'loss': 1.0, 'epoch': 0.33}", {"loss": (0, 1.0), "epoch": (0, 0.33)}),
        ("{'loss': '1.0', 'epoch': '0.33'}", {"loss": (0, 1.0), "epoch": (0, 0.33)}),
        ("{'step': 5, 'loss': 0.5}", {"loss": (5, 0.5)}),
        ("{'eval': {'loss': 0.5}, 'epoch': 1}", {"eval/loss": (0, 0.5), "epoch": (0, 1.0)}),
        ("{'loss': nan, 'epoch': 1}", {"loss": (0, "NaN"), "epoch": (0, 1.0)}),
        ("{'loss': tensor(0.5, device='cuda:0'), 'acc': np.float64(0.25)}", {"loss": (0, 0.5), "acc": (0, 0.25)}),
        ("{'f1': 0.5, 'accuracy': 0.75}", {"f1": (0, 0.5), "accuracy": (0, 0.75)}),
        ("INFO:root:{'step': 5, 'loss': 0.5}", {"loss": (5, 0.5)}),
    ],
)
def test_dicts_as_trainers_print_them_are_points_and_stay_in_the_log(
    line: str, points: dict[str, tuple[int, float]], read: Any
) -> None:
    result = read(f"{line}\n")
    assert {metric: found[0] for metric, found in result.points.items()} == points
    assert result.log == [line]


@pytest.mark.parametrize(
    "line",
    [
        "{'lr': 0.1, 'batch_size': 32, 'seed': 42}",
        "{'loss': 'mse', 'label_smoothing': 0.1, 'loss_weight': 0.5}",
        "{'C': 1.0, 'max_iter': 100, 'tol': 0.0001, 'verbose': 0}",
        "{'x': __import__('os').getpid(), 'epoch': 1}",
        "{'loss': " + "[" * 2_000 + "}",
        "{1: 0.5, 2: 0.25}",
    ],
)
def test_settings_and_code_are_no_points(line: str, read: Any) -> None:
    assert read(f"{line}\n" * 5).points == {}


def test_json_on_standard_error_is_log_with_a_notice(read: Any) -> None:
    result = read('{"step": 1, "loss": 0.5}\n', name="STDERR")
    assert result.points == {}
    assert result.notices["JSON_ON_STDERR"][0] == 1


def test_text_with_control_characters_is_cleaned_in_a_notice(read: Any) -> None:
    _, example, _ = read('{"step":6,"tr\x07ial":1,}' + "\n").notices["NEARLY_JSON"]
    assert example == '{"step":6,"tr ial":1,}'


FIELDS = (
    "2026-11-29 06:49:59,838 - train - INFO - ",
    "[2026-11-29 06:49:59,838][__main__][INFO] - ",
    "2026-11-29T06:49:59.838123456Z stdout F ",
    "Nov 29 06:49:59 host python[123]: ",
    "2026-11-29 06:49:59.838 | INFO     | __main__:main:12 - ",
    "INFO:root:",
    "(train pid=123) ",
    "(RayTrainWorker pid=123, ip=10.0.0.1) ",
)


@pytest.mark.parametrize("prefix", FIELDS)
def test_an_object_behind_the_fields_of_a_logger_is_points(prefix: str, read: Any) -> None:
    result = read("".join(f'{prefix}{{"step": {n}, "loss": 0.5}}\n' for n in range(3)))
    assert result.points == {"loss": [(0, 0.5), (1, 0.5), (2, 0.5)]}
    assert result.notices == {}


@pytest.mark.parametrize(
    "line",
    [
        '2026-11-29 06:49:59,838 - http - INFO - {"status": 200, "ms": 12}',
        '2026-11-29 06:49:59 INFO request body {"step": 5, "error": 3}',
        'Nov 29 06:49:59 host app[1]: {"port": 8080, "pid": 17}',
    ],
)
def test_an_object_that_a_logger_wrote_about_something_else_is_none(line: str, read: Any) -> None:
    assert read(f"{line}\n" * 3).points == {}


@pytest.mark.parametrize("step", ["Epoch {}: ", "epoch {}/3 ", "[step {}] ", "step={}: ", "Iteration {} - "])
@pytest.mark.parametrize("record", ["{{'loss': 0.{}, 'acc': 0.2}}", '{{"loss": 0.{}, "acc": 0.2}}'])
def test_an_object_behind_its_step_is_points(step: str, record: str, read: Any) -> None:
    result = read("".join(f"{step.format(n)}{record.format(n)}\n" for n in (1, 2, 3)))
    assert result.points["loss"] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert result.notices == {}
    assert len(result.log) == 3


def test_a_step_with_other_words_or_an_object_of_settings_is_none(read: Any) -> None:
    assert read("retrying step 3 of deploy: {'code': 5}\nepoch 1: {'workers': 4, 'seed': 2}\n" * 3).points == {}


@pytest.mark.parametrize(
    "line", ["OrderedDict({'loss': 0.5, 'step': 1})", "defaultdict(<class 'float'>, {'loss': 0.5, 'step': 1})"]
)
def test_a_dict_of_another_type_is_points(line: str, read: Any) -> None:
    assert read(f"{line}\n").points == {"loss": [(1, 0.5)]}


def test_values_that_are_not_finite_as_c_prints_them_are_points(read: Any) -> None:
    lines = '{"step": 1, "loss": nan}\n{"step": 2, "loss": -inf}\n{"step": 3, "loss": -nan, "a": INF}\n'
    result = read(lines)
    assert result.points == {"loss": [(1, "NaN"), (2, "-Infinity"), (3, "NaN")], "a": [(3, "Infinity")]}
    assert result.notices == {}


@pytest.mark.parametrize("name", ["Step", "STEP", "global_step", "iteration", "iter"])
def test_a_step_by_another_name_counts_where_there_is_no_epoch(name: str, read: Any) -> None:
    lines = "".join(f'{{"{name}": {n}, "loss": 0.5}}\n' for n in (5, 9))
    assert read(lines).points == {"loss": [(5, 0.5), (9, 0.5)]}
    within = '{"epoch": 1, "iter": 50, "loss": 0.5}\n{"epoch": 2, "iter": 50, "loss": 0.4}\n'
    assert read(within).points["loss"] == [(0, 0.5), (1, 0.4)], "it begins anew in each epoch"


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ('{"step": 1, "loss": "0.5", "acc": 0.3}\n', "VALUES_UNUSABLE", 1),
        ('{"step": 1, "loss": [0.5, 0.4], "acc": 0.3}\n', "VALUES_UNUSABLE", 1),
        ("{'step': 1, 'loss': 0.5\n", "NEARLY_JSON", 1),
        ('metrics: {"step": 1, "loss": 0.5} done\n', "UNKNOWN_PREFIX", 1),
        ('<<metrics>> {"step": 1, "loss": 0.5}\n', "UNKNOWN_PREFIX", 1),
        ('{\n  "step": 1,\n  "loss": 0.5\n}\n', "LOOKS_LIKE_METRICS", 1),
        ('{"step": 1, {"step": 2, "a": 1}\n"a": 2}\n', "NEARLY_JSON", 1),
    ],
)
def test_what_was_nearly_points_is_a_notice(text: str, kind: str, count: int, read: Any) -> None:
    assert read(text).notices[kind][0] == count


def test_an_object_over_several_lines_has_advice(read: Any) -> None:
    assert "print it on one line" in read('{\n  "step": 1,\n  "loss": 0.5\n}\n').notices["LOOKS_LIKE_METRICS"][2]
