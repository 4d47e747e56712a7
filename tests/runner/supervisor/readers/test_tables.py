"""Tables: what begins and ends one, what is none of their metrics, and lines that only look like them."""

from __future__ import annotations

from typing import Any

FASTAI = """
epoch     train_loss  valid_loss  _rmse     time
0         1.500000    1.200000    1.095445  00:00
1         0.500000    nan         0.894427  01:02
epoch     train_loss  valid_loss  time
0         0.250000    0.200000    1:02:03
"""
SPACY = """
E    #       LOSS TEXTCAT  CATS_SCORE  SCORE
---  ------  ------------  ----------  ------
  0       0          0.25       33.33    0.33
 10     200          0.05      100.00    1.00
done
  1       2          3.00        4.00    5.00
"""
YOLO = """
      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size
        1/2         0G      3.123      4.515      4.234          8         64: 100% |####| 2/2 5.3it/s 0.4s
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100% |####| 1/1 3.1it/s
                   all          8          8       0.01       0.25       0.02      0.005

      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size
        2/2      1.23G      2.123      3.515      3.234          8         64: 100% |####| 2/2 5.3it/s 0.4s
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100% |####| 1/1 3.1it/s
                   all          8          8       0.02       0.50       0.04      0.010

2 epochs completed in 0.001 hours.
                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100% |####| 1/1 3.1it/s
                   all          8          8       0.02       0.50       0.04      0.010
"""
BOX = """
---------------------------------
| rollout/           |          |
|    ep_rew_mean     | {}       |
| time/              |          |
|    total_timesteps | {}       |
---------------------------------
"""


def test_epochs_of_fastai_count_on_over_fits(read: Any) -> None:
    assert read(FASTAI).points == {
        "train_loss": [(0, 1.5), (1, 0.5), (2, 0.25)],
        "valid_loss": [(0, 1.2), (1, "NaN"), (2, 0.2)],
        "_rmse": [(0, 1.095445), (1, 0.894427)],
    }


def test_rows_of_spacy_are_points_until_its_table_ends(read: Any) -> None:
    assert read(SPACY).points == {
        "LOSS TEXTCAT": [(0, 0.25), (200, 0.05)],
        "CATS_SCORE": [(0, 33.33), (200, 100.0)],
        "SCORE": [(0, 0.33), (200, 1.0)],
    }


def test_epochs_of_yolo_and_their_validation_are_points_and_the_last_validation_is_none(read: Any) -> None:
    result = read(YOLO)
    assert result.points == {
        "box_loss": [(1, 3.123), (2, 2.123)],
        "cls_loss": [(1, 4.515), (2, 3.515)],
        "dfl_loss": [(1, 4.234), (2, 3.234)],
        "Box/P": [(1, 0.01), (2, 0.02)],
        "Box/R": [(1, 0.25), (2, 0.5)],
        "Box/mAP50": [(1, 0.02), (2, 0.04)],
        "Box/mAP50-95": [(1, 0.005), (2, 0.01)],
    }
    assert result.notices == {}


def test_each_box_is_a_point_also_when_it_looks_like_the_one_before(read: Any) -> None:
    boxes = "".join(BOX.format(reward, 128 * (reward + 1)) for reward in range(6))
    assert read(boxes).points == {"rollout/ep_rew_mean": [(128 * (n + 1), float(n)) for n in range(6)]}


def test_tables_of_other_programs_are_log(read: Any) -> None:
    for text in (
        "| Name/              |          |\n| cpus     | 4   |\n| memory   | 16  |\n",
        "| rollout/           |          |\n|    ep_rew_mean     | 5        |\n--------------\n",  # without a step
        "epoch     train_loss  valid_loss  time\nnothing\n0         1.5    1.2    00:00\n",
        "E    #       FILE  SIZE\n  0       0     x   1.0\n",
    ):
        assert read(text).points == {}, text
