"""Ray clusters in `doctor`: what is wrong is found, with advice, and no token is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import Answer, Head, serving

from cli import doctor_clusters
from cli.doctor_clusters import Found
from settings import Settings

TOKEN = "t0ken-of-the-cluster"


@pytest.fixture
def head() -> Iterator[Head]:
    with serving() as head:
        yield head


@pytest.fixture
def settings(head: Head, tmp_path: Path) -> Settings:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "clusters.toml").write_text(f'[gpu]\naddress = "{head.url}"\ntoken_file = "{tmp_path}/token"\n')
    return Settings(ray_clusters=tmp_path / "clusters.toml")


def examine(settings: Settings) -> list[Found]:
    found = list(doctor_clusters.examine(settings))
    assert TOKEN not in str(found)
    return found


def test_no_cluster_is_no_finding() -> None:
    assert examine(Settings()) == []


def test_a_cluster_that_answers(head: Head, settings: Settings) -> None:
    head.nodes.append({"state": "DEAD"})
    [(check, level, sentence, _)] = examine(settings)
    assert (check, level) == ("cluster gpu", "ok")
    assert sentence == f"Ray 2.60.0 at {head.url}: 2 of 2 nodes take work."
    assert head.tokens == {f"Bearer {TOKEN}"}


def test_a_cluster_without_workers(head: Head, settings: Settings) -> None:
    head.nodes = [{"state": "ALIVE", "resources_total": {"memory": 1.0}}]
    [(_, level, sentence, advice)] = examine(settings)
    assert (level, advice) == ("warning", "Start workers, or a head with --num-cpus.")
    assert "has no node with CPUs" in sentence


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, "Unauthorized"), "refuses the token (401)"),
        ((403, "Forbidden"), "refuses the token (403)"),
        ((500, "Traceback"), "answered with status 500"),
        ((200, "<html>"), "does not answer like a Ray cluster"),
        ((200, {"status": "ready"}), "does not answer like a Ray cluster"),
    ],
)
def test_an_answer_of_something_else(head: Head, settings: Settings, answer: Answer, told: str) -> None:
    head.answer = lambda *_: answer
    [(_, level, sentence, advice)] = examine(settings)
    assert level == "problem"
    assert told in sentence
    assert advice


def test_a_cluster_that_wants_a_token_and_gets_none(head: Head, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "clusters.toml").write_text(f'[gpu]\naddress = "{head.url}"\n')
    head.answer = lambda *_: (401, "Unauthorized")
    [(_, level, sentence, advice)] = examine(settings)
    assert (level, sentence) == ("problem", "The cluster wants a token (401).")
    assert "token_file" in advice


def test_no_answer(head: Head, settings: Settings) -> None:
    head.close()
    [(_, level, sentence, _)] = examine(settings)
    assert level == "problem"
    assert f"{head.url} does not answer: " in sentence


def test_files_that_can_not_be_used(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    [(check, level, sentence, _)] = examine(settings)
    assert (check, level) == ("cluster gpu", "problem")
    assert "can't be read: No such file" in sentence
    (tmp_path / "clusters.toml").write_text("[gpu]")
    [(check, level, sentence, _)] = examine(settings)
    assert (check, level) == ("clusters", "problem")
    assert "gpu.address: Field required" in sentence


@pytest.mark.parametrize(
    ("address", "has_token", "api_url", "told"),
    [
        ("https://ray.example.org:8265", True, "http://127.0.0.1:8000/graphql", ["this host only"]),
        ("http://ray.example.org:8265", True, "https://sim.example.org/graphql", ["unencrypted"]),
        ("https://ray.example.org:8265", False, "https://sim.example.org/graphql", ["wants no token"]),
        ("https://ray.example.org:8265", True, "https://sim.example.org/graphql", []),
        ("http://127.0.0.1:8265", False, "http://127.0.0.1:8000/graphql", []),
    ],
)
def test_ways_that_are_closed_or_open_to_all(address: str, has_token: bool, api_url: str, told: list[str]) -> None:
    cluster = doctor_clusters.RayCluster(name="gpu", address=address, token_file=Path("/t") if has_token else None)
    found = list(doctor_clusters._ways("cluster gpu", cluster, api_url))
    assert len(found) == len(told)
    assert all(part in sentence for part, (_, _, sentence, _) in zip(told, found, strict=True))
