"""The bucket of files in `doctor`, on a real S3 server: what is wrong is found, with advice, and no secret is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket import BUCKET, Server

from cli import doctor_files
from cli.doctor_files import Found
from settings import Settings

Examine = Callable[..., list[Found]]
Change = dict[str, Any]


@pytest.fixture
def examine(bucket_server: Server, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Examine:
    monkeypatch.setattr(doctor_files, "ANSWER_SECONDS", 60.0)

    def examined(url: str = bucket_url) -> list[Found]:
        found = list(doctor_files.examine(Settings(files=url)))
        assert bucket_server.secret not in str(found)
        assert "X-Amz-Signature" not in str(found)
        return found

    return examined


def test_without_a_bucket_there_is_nothing_to_find() -> None:
    assert [
        each for files in (None, "none", "/srv/files") for each in doctor_files.examine(Settings(files=files))
    ] == []


def test_a_bucket_is_tried_as_machines_use_it_and_left_as_it_was(examine: Examine, bucket_server: Server) -> None:
    [(check, level, sentence, _)] = examine()
    assert (check, level) == ("files", "ok")
    assert sentence == f"Bucket {BUCKET} at {bucket_server.url} takes, returns and removes files."
    listed = bucket_server.client().list_objects_v2(Bucket=BUCKET, Prefix="part/").get("Contents", ())
    assert [each["Key"] for each in listed if "doctor" in each["Key"]] == []


@pytest.mark.parametrize(
    ("change", "said", "advised"),
    [
        ({"url": ("the-bucket", "not-there")}, "NoSuchBucket", "Create the bucket"),
        ({"url": ("127.0.0.1", "127.0.0.2")}, "Could not connect", "that its server runs"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "Partial credentials", "Set both"),
        (
            {"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None},
            "locate credentials",
            "process of `graph`",
        ),
        ({"AWS_PROFILE": "not-there"}, "not-there", "Correct AWS_PROFILE"),
    ],
)
def test_what_is_wrong_with_a_bucket_has_its_advice(
    examine: Examine,
    bucket_url: str,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    said: str,
    advised: str,
) -> None:
    for name, value in change.items():
        if name != "url":
            monkeypatch.setenv(name, str(value)) if value is not None else monkeypatch.delenv(name)
    url = bucket_url.replace(*change["url"]) if "url" in change else bucket_url
    [(check, level, sentence, advice)] = examine(url)
    assert (check, level) == ("files", "problem")
    assert said in sentence
    assert advised in advice


def test_a_bucket_behind_a_private_authority_needs_its_file(
    examine: Examine, bucket_server: Server, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket_url.replace(bucket_server.url, bucket_server.https)
    [(_, level, sentence, advice)] = examine(url)
    assert (level, "CERTIFICATE_VERIFY_FAILED" in sentence) == ("problem", True)
    assert "&ca=" in advice
    [(_, level, sentence, _)] = examine(f"{url}&ca={bucket_server.authority}")
    assert (level, sentence) == ("ok", f"Bucket {BUCKET} at {bucket_server.https} takes, returns and removes files.")
    [(_, level, sentence, advice)] = examine(f"{url}&ca={tmp_path / 'none'}")
    assert (level, "No such file" in sentence) == ("problem", True)

    monkeypatch.setenv("AWS_CA_BUNDLE", str(bucket_server.authority))
    [(_, level, sentence, advice)] = examine(url)
    assert (level, "CERTIFICATE_VERIFY_FAILED" in sentence) == ("problem", True), "it is for the service alone"
    assert "&ca=" in advice


def test_an_unencrypted_way_to_a_bucket_elsewhere_is_a_warning(
    examine: Examine, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_files, "_try", lambda _: (1_000.0, False))
    found = examine("s3://bucket?endpoint=http://s3.example.org")
    assert [level for _, level, _, _ in found] == ["ok", "warning", "warning", "warning"]
    assert "differ by 1000 s" in found[1][2]
    assert "does not check digests" in found[2][2]
    assert "unencrypted" in found[3][2]
