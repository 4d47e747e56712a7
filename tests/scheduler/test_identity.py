"""The id of a host: kept over restarts, one scheduler at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.embedded.data_directory import EmbeddedError
from scheduler.identity import HostTaken, this_host


def test_the_id_is_made_once_and_kept(tmp_path: Path) -> None:
    with this_host(tmp_path / "data") as first:
        assert len(first) == 32
    with this_host(tmp_path / "data") as second:
        assert second == first
    with this_host(tmp_path / "other") as other:
        assert other != first


def test_an_empty_file_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "host-id").touch()
    with this_host(tmp_path) as made:
        assert len(made) == 32


def test_a_second_scheduler_on_the_same_data_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with (
        this_host(tmp_path),
        pytest.raises(HostTaken, match="Another scheduler runs on this data directory"),
        this_host(tmp_path),
    ):
        pytest.fail("two schedulers would launch everything twice")


def test_a_directory_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(EmbeddedError, match="is a file"), this_host(tmp_path / "data"):
        pytest.fail("there is no directory")
