"""What a bucket's refusal of a signed URL means: a sentence with the next step, for the notice of a simulation.

A reply quotes the request that it refuses, with the signature: only its status, the code of its error, and the place
that a redirect names are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

PERMISSION = "Allow the service's credentials s3:GetObject and s3:PutObject below the prefix of SIMULATIONS_FILES."
CREDENTIALS = "Check the credentials of the service: `simulations doctor`."
CLOCK = "Set the clocks of the service's host and of the bucket's."
FULL = "Make room in the bucket, or raise its quota."
PLACE = "Correct the endpoint in SIMULATIONS_FILES: what answers there may be no bucket."
BUSY = "It is overloaded, and asked again more slowly."
RENEWED = "A new one is asked for."
SERVER = "See the log of its server."

ADVICE = {
    "AccessDenied": PERMISSION,
    "AllAccessDisabled": PERMISSION,
    "ExpiredToken": RENEWED,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidToken": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
    "RequestTimeTooSkewed": CLOCK,
    "NoSuchBucket": "Create the bucket, or correct SIMULATIONS_FILES.",
    "QuotaExceeded": FULL,
    "XMinioAdminBucketQuotaExceeded": FULL,
    "XMinioStorageFull": FULL,
    "BadDigest": "Its bytes were changed on the way: they are sent again.",
    "XAmzContentChecksumMismatch": "Its bytes were changed on the way: they are sent again.",
    "SlowDown": BUSY,
}
BY_STATUS = {403: PERMISSION, 404: PLACE, 429: BUSY, 503: BUSY, 507: FULL}
DAMAGED = ("BadDigest", "XAmzContentChecksumMismatch")
REGION = re.compile(r"[a-z0-9-]{1,40}")


def code_of(body: bytes) -> str:
    """The code of the error in a reply; "" if it has none."""
    found = re.search(rb"<Code>(\w{1,60})</Code>", body)
    return found[1].decode() if found else ""


def is_expired(body: bytes) -> bool:
    """Whether the time of the URL is over: buckets give that the code of a missing permission."""
    found = re.search(rb"<Message>([^<]{0,200})</Message>", body)
    return found is not None and b"expired" in found[1].lower()


def advice(status: int, body: bytes, headers: Mapping[str, str]) -> str:
    """What to do about a refusal: a sentence."""
    code = code_of(body)
    if 300 <= status < 400 or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return _elsewhere(headers)
    if status in (400, 403) and is_expired(body):
        return RENEWED
    return ADVICE.get(code) or BY_STATUS.get(status, SERVER if status >= 500 else CREDENTIALS)


def _elsewhere(headers: Mapping[str, str]) -> str:
    """A signature is good for one host and region: following a redirect would not help."""
    region = headers.get("x-amz-bucket-region") or ""
    if REGION.fullmatch(region):
        return f"The bucket is in another region: set region={region} in SIMULATIONS_FILES."
    place = urlsplit(headers.get("location") or "").netloc.rpartition("@")[2]
    named = f" It redirects to {place[:100]}." if place else ""
    return f"Correct endpoint and region of SIMULATIONS_FILES.{named}"
