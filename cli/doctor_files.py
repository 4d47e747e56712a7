"""Check of a bucket of files by `simulations doctor`: credentials, answer, clock, and what supervisors do there.

A small object is put and read by signed URLs, as machines do it, and removed. Run from where the service runs; whether
machines reach the bucket, only a machine could try.
"""

from __future__ import annotations

import secrets
import ssl
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any

import httpx

from cli.terminal import clean
from settings import Bucket, Settings

Found = tuple[str, str, str, str]  # check, level, sentence, advice

CHECK = "files"
ANSWER_SECONDS = 20.0
URL_SECONDS = 300
SKEW_SECONDS = 300.0  # a third of what buckets allow
CONTENT, OTHER = b"of simulations doctor", b"of another content..."  # equally long

AUTHORITY = "Name the file with its authority's certificate: s3://bucket?endpoint=...&ca=/etc/ssl/bucket.pem"
ADVICE = {
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the process of `graph`.",
    "PartialCredentialsError": "Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "ProfileNotFound": "Correct AWS_PROFILE.",
    "SSLError": AUTHORITY,
    "NoSuchBucket": "Create the bucket, or correct SIMULATIONS_FILES.",
    "AccessDenied": "Allow s3:ListBucket, and s3:GetObject, s3:PutObject and s3:DeleteObject below its prefix.",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Correct AWS_SECRET_ACCESS_KEY.",
    "PermanentRedirect": "Set its region: s3://bucket?region=...",
    "AuthorizationHeaderMalformed": "Set its region: s3://bucket?region=...",
    "RequestTimeTooSkewed": "Set the clock of this host.",
}


class Unusable(Exception):
    """A step failed: a sentence, and advice."""

    def __init__(self, sentence: str, advice: str) -> None:
        super().__init__(sentence)
        self.advice = advice


def examine(settings: Settings) -> Iterator[Found]:
    """Check the bucket of the settings, if files are kept in one."""
    bucket = settings.bucket
    if bucket is None:
        return
    named = f"Bucket {bucket.name}{f' at {bucket.endpoint}' if bucket.endpoint else ''}"
    try:
        skew_seconds, checks_digests = _try(bucket)
    except Unusable as unusable:
        yield (CHECK, "problem", f"{named} can't be used: {unusable}.", unusable.advice)
        return
    yield (CHECK, "ok", f"{named} takes, returns and removes files.", "")
    if abs(skew_seconds) > SKEW_SECONDS:
        sentence = f"The clocks of this host and of the bucket differ by {abs(skew_seconds):.0f} s."
        yield (CHECK, "warning", sentence, "Set this host's clock: signed URLs are refused from 15 minutes on.")
    if not checks_digests:
        sentence = f"{named} does not check digests: what a machine writes wrongly is noticed when it is read."
        yield (CHECK, "warning", sentence, "Use a server that checks x-amz-checksum-sha256.")
    if bucket.is_unencrypted:
        yield (CHECK, "warning", "Files cross the network unencrypted.", "Use an endpoint with https.")


def _try(bucket: Bucket) -> tuple[float, bool]:
    """Do what supervisors and the service do; return the difference of the clocks, and whether digests are checked."""
    from botocore.exceptions import BotoCoreError, ClientError

    key = f"{bucket.prefix}doctor-{secrets.token_hex(8)}"
    named = {"Bucket": bucket.name, "Key": key}
    checksum = b64encode(sha256(CONTENT).digest()).decode()
    try:
        client = bucket.connect()
        answer = client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix, MaxKeys=1)
        bound = {**named, "ContentLength": len(CONTENT), "ChecksumSHA256": checksum}
        to_put = client.generate_presigned_url("put_object", bound, ExpiresIn=URL_SECONDS)
        to_get = client.generate_presigned_url("get_object", named, ExpiresIn=URL_SECONDS)
        verify = ssl.create_default_context(cadata=bucket.authorities() or None)
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False, verify=verify) as machine:
            headers = {"x-amz-checksum-sha256": checksum}
            try:
                _require(machine.put(to_put, content=CONTENT, headers=headers), "a signed URL to write to is refused")
                read = _require(machine.get(to_get), "a signed URL to read from is refused")
                if read.content != CONTENT:
                    raise Unusable("it returns other bytes than it was given", "See the log of its server.")
                checks_digests = not machine.put(to_put, content=OTHER, headers=headers).is_success
            finally:
                client.delete_objects(Bucket=bucket.name, Delete={"Objects": [{"Key": key}], "Quiet": True})
            if machine.get(to_get).is_success:
                raise Unusable("it does not remove objects", "Allow s3:DeleteObject below its prefix.")
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        said = clean(str(error.response.get("Error", {}).get("Message") or ""))
        raise Unusable(f"{clean(error.operation_name)}: {clean(code)} {said}".strip(), _advice(code)) from None
    except (BotoCoreError, httpx.HTTPError, ValueError) as error:
        name = "SSLError" if "CERTIFICATE_VERIFY_FAILED" in str(error) else type(error).__name__
        raise Unusable(clean(str(error)) or type(error).__name__, _advice(name)) from None
    return _skew(answer), checks_digests


def _require(answer: httpx.Response, what: str) -> httpx.Response:
    if not answer.is_success:
        raise Unusable(f"{what}: status {answer.status_code}", "Check endpoint, region and style of its URL.")
    return answer


def _skew(answer: Any) -> float:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _advice(code: str) -> str:
    return ADVICE.get(code, "Check SIMULATIONS_FILES, that its server runs, and the way to it.")
