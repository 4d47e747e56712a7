"""Refusals of buckets, as their servers word them: what to do is said, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.supervisor.files import bucket


def reply(code: str, message: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<StringToSign>SECRET</StringToSign><Resource>/b/SECRET</Resource></Error>"
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (403, reply("AccessDenied", "Request has expired"), bucket.RENEWED),
        (400, reply("ExpiredToken", "The provided token has expired."), bucket.RENEWED),
        (403, reply("AccessDenied", "Access Denied."), bucket.PERMISSION),
        (403, b"", bucket.PERMISSION),
        (403, reply("SignatureDoesNotMatch"), bucket.CREDENTIALS),
        (403, reply("InvalidAccessKeyId"), bucket.CREDENTIALS),
        (403, reply("RequestTimeTooSkewed"), bucket.CLOCK),
        (403, reply("QuotaExceeded"), bucket.FULL),
        (400, reply("XMinioAdminBucketQuotaExceeded"), bucket.FULL),
        (507, reply("XMinioStorageFull"), bucket.FULL),
        (507, b"", bucket.FULL),
        (404, reply("NoSuchBucket"), bucket.ADVICE["NoSuchBucket"]),
        (400, reply("BadDigest"), bucket.ADVICE["BadDigest"]),
        (503, reply("SlowDown"), bucket.BUSY),
        (503, b"<html>", bucket.BUSY),
        (429, b"", bucket.BUSY),
        (500, reply("InternalError"), bucket.SERVER),
        (502, b"", bucket.SERVER),
        (404, b"<html>", bucket.PLACE),
    ],
)
def test_each_refusal_has_its_next_step(status: int, body: bytes, advice: str) -> None:
    assert bucket.advice(status, body, {}) == advice


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-amz-bucket-region": "eu-west-1"}, "set region=eu-west-1 in"),
        (
            {"location": "https://b.s3.eu-west-1.example.org/key?X-Amz-Signature=SECRET"},
            "to b.s3.eu-west-1.example.org.",
        ),
        ({"location": "https://user:SECRET@host/key"}, "to host."),
        ({"x-amz-bucket-region": "SECRET; rm"}, "Correct endpoint and region"),
        ({}, "Correct endpoint and region"),
    ],
)
@pytest.mark.parametrize(("status", "body"), [(307, b""), (301, reply("PermanentRedirect"))])
def test_a_redirect_names_the_region_or_the_place_and_no_signature(
    status: int, body: bytes, headers: Mapping[str, str], said: str
) -> None:
    advice = bucket.advice(status, body, headers)
    assert said in advice
    assert "SECRET" not in advice


def test_a_region_that_is_not_the_signed_one_is_named() -> None:
    body = reply("AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-west-1'")
    assert "region=eu-west-1" in bucket.advice(400, body, {"x-amz-bucket-region": "eu-west-1"})


def test_codes_are_read_from_what_has_one() -> None:
    assert bucket.code_of(reply("NoSuchKey")) == "NoSuchKey"
    assert [bucket.code_of(each) for each in (b"", b"<html>404</html>", b"<Code>a b</Code>")] == ["", "", ""]
