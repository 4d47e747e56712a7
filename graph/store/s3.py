"""Store in an S3-compatible bucket. Supervisors put and get objects by signed URLs: their bytes pass this service by.

    PREFIX/installation      whose it is
    PREFIX/<id // 1000>/<id> a piece: 8 MiB at most, put by one request, so that no upload in parts is ever left behind

A URL to put a piece binds its size and its SHA-256, which the bucket checks: by it nothing else can be written, however
late. Servers that ignore the checksum check the size alone; who reads a piece compares its digest anyway.

botocore's client blocks: its requests run in threads of their own, so that a bucket that hangs holds up nothing else.
Failures: StoreUnavailable, after botocore's own retries; its message quotes no credentials and no signature.
"""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import groupby
from typing import Any, TypeVar

from graph.store.base import MARKER, BadPiece, StoreUnavailable, require_own
from settings import BUCKET_CONNECTIONS, Bucket

Result = TypeVar("Result")

OFFER_SECONDS = 3600  # how long a signed URL can be used
READ_BYTES = 1 << 20
GROUP = 1000  # ids below one prefix; also the most keys of a list, and of a removal


class S3:
    """The store."""

    is_direct = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._made: Any = None  # the client
        self._threads = ThreadPoolExecutor(BUCKET_CONNECTIONS, thread_name_prefix="bucket")

    def offer_put(self, piece_id: int, digest: str, size_bytes: int) -> Mapping[str, object]:
        """A URL, and the header that it binds."""
        checksum = b64encode(bytes.fromhex(digest)).decode()
        url = self._sign("put_object", piece_id, ContentLength=size_bytes, ChecksumSHA256=checksum)
        return {"url": url, "headers": {"x-amz-checksum-sha256": checksum}}

    def offer_get(self, piece_id: int) -> Mapping[str, object]:
        """A URL."""
        return {"url": self._sign("get_object", piece_id)}

    def authorities(self) -> str:
        """Those of the settings, as their file has them now: it may be replaced before the old ones run out."""
        return str(_guarded(self._bucket.authorities))

    async def claim(self, installation: str) -> None:
        """Write whose it is, or compare."""
        await self._run(self._claim, installation)

    async def free_bytes(self) -> int | None:
        """A bucket has no end."""
        return None

    async def put(self, piece_id: int, digest: str, content: bytes | memoryview) -> None:
        """Write a piece."""
        if sha256(content).hexdigest() != digest:
            raise BadPiece("The bytes are not those of the digest: send them again.")
        await self._run(self._put, self._key(piece_id), content)

    async def read(self, piece_id: int, begin: int, end: int) -> AsyncIterator[bytes]:
        """Read a part of a piece, 1 MiB at a time."""
        if begin >= end:
            return
        body = await self._run(self._open, piece_id, begin, end)
        try:
            while begin < end:
                chunk = await self._run(body.read, READ_BYTES)
                if not chunk:
                    raise FileNotFoundError(f"piece {piece_id} is shorter than it was")
                begin += len(chunk)
                yield chunk
        finally:
            body.close()

    async def sizes(self, piece_ids: Collection[int]) -> Mapping[int, int]:
        """List the part of the bucket that they are in: one request for up to a thousand."""
        return await self._run(self._sizes, sorted(piece_ids))

    async def ids(self) -> AsyncIterator[Collection[int]]:
        """List the bucket."""
        keys, behind = await self._run(self._list, self._bucket.prefix, self._bucket.prefix)
        yield self._ids(keys)
        while behind:
            keys, behind = await self._run(self._list, self._bucket.prefix, behind)
            yield self._ids(keys)

    async def remove(self, piece_ids: Collection[int]) -> None:
        """Remove pieces."""
        await self._run(self._remove, sorted(piece_ids))

    async def tidy(self) -> None:
        """Nothing: a request that was cut off leaves no object."""

    # --- in threads --------------------------------------------------------------------------------------------

    async def _run(self, act: Callable[..., Result], *given: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: _guarded(act, *given))

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._bucket.connect()
            return self._made

    def _sign(self, operation: str, piece_id: int, **bound: object) -> str:
        params = {"Bucket": self._bucket.name, "Key": self._key(piece_id), **bound}
        url = _guarded(lambda: self._client().generate_presigned_url(operation, params, ExpiresIn=OFFER_SECONDS))
        return str(url)

    def _claim(self, installation: str) -> None:
        key = f"{self._bucket.prefix}{MARKER}"
        owner = self._find(key)
        if owner is None:
            self._put(key, installation.encode())
            owner = self._find(key)  # that of another process, if it came first
        if owner is None:
            raise StoreUnavailable(f"the object {key} was put into bucket {self._bucket.name}, and is not there")
        require_own(owner.decode(errors="replace"), installation, f"the object {key} of bucket {self._bucket.name}")

    def _find(self, key: str) -> bytes | None:
        try:
            return bytes(_guarded(self._client().get_object, Bucket=self._bucket.name, Key=key)["Body"].read())
        except FileNotFoundError:
            return None

    def _put(self, key: str, content: bytes | memoryview) -> None:
        checksum = b64encode(sha256(content).digest()).decode()
        self._client().put_object(Bucket=self._bucket.name, Key=key, Body=bytes(content), ChecksumSHA256=checksum)

    def _open(self, piece_id: int, begin: int, end: int) -> Any:
        named = {"Bucket": self._bucket.name, "Key": self._key(piece_id)}
        return self._client().get_object(**named, Range=f"bytes={begin}-{end - 1}")["Body"]

    def _sizes(self, piece_ids: Sequence[int]) -> Mapping[int, int]:
        found: dict[int, int] = {}
        for group, members in groupby(piece_ids, key=lambda each: each // GROUP):
            wanted = {self._key(each): each for each in members}
            last, behind = max(wanted), min(wanted)[:-1]
            while behind and behind < last:
                listed, behind = self._list(f"{self._bucket.prefix}{group}/", behind)
                found.update({wanted[key]: size for key, size in listed.items() if key in wanted})
        return found

    def _list(self, prefix: str, behind: str) -> tuple[Mapping[str, int], str]:
        """Return keys behind one, with their sizes, and the last of them if there are more."""
        page = self._client().list_objects_v2(Bucket=self._bucket.name, Prefix=prefix, StartAfter=behind)
        sizes = {str(each["Key"]): int(each["Size"]) for each in page.get("Contents", ())}
        return sizes, max(sizes) if sizes and page.get("IsTruncated") else ""

    def _remove(self, piece_ids: Sequence[int]) -> None:
        for keys in _groups([self._key(each) for each in piece_ids]):
            named = {"Objects": [{"Key": each} for each in keys], "Quiet": True}
            answer = self._client().delete_objects(Bucket=self._bucket.name, Delete=named)
            for failed in answer.get("Errors", ()):
                raise StoreUnavailable(f"an object can't be removed: {failed.get('Code')}: {failed.get('Message')}")

    def _key(self, piece_id: int) -> str:
        return f"{self._bucket.prefix}{piece_id // GROUP}/{piece_id}"

    def _ids(self, keys: Collection[str]) -> Collection[int]:
        numbers = [key.rpartition("/")[2] for key in keys]
        named = {self._key(int(each)): int(each) for each in numbers if each.isdecimal()}
        return [named[key] for key in keys if key in named]


def _groups(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(keys), GROUP):
        yield keys[begin : begin + GROUP]


def _guarded(act: Callable[..., Result], *given: object, **named: object) -> Result:
    """Call, with a failure of the bucket as one of the protocol's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return act(*given, **named)
    except ClientError as error:
        answer = error.response.get("Error", {})
        if answer.get("Code") in ("NoSuchKey", "InvalidRange"):  # or shorter than the part that is read
            raise FileNotFoundError(str(answer.get("Message"))) from None
        raise StoreUnavailable(f"{error.operation_name}: {answer.get('Code')}: {answer.get('Message')}") from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is none
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from None
