"""A real S3 server on this host, SeaweedFS: it checks signatures, their time, and the digests that they bind. It serves
the same by TLS, with a certificate of an authority of its own.

One for each pytest process that wants one, in an environment of its own (47 MB, kept in `.make`). Where it can't be
installed the tests that need it are skipped; with REQUIRE_BUCKETS, as in CI, they fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import environments
import httpx
from live import free_port
from warm import end_with_parent

LOCK = Path(__file__).with_name("buckets") / "seaweedfs.lock"
PATIENCE_SECONDS = 120.0  # a start takes three
TRIES = 3  # all of its ports have to be free
PORTS = ("master", "volume", "filer", "s3")
HTTPS = "s3.https"
KEY = "a-key"
BUCKET = "the-bucket"  # one: each takes several of its volumes


@dataclass
class Server:
    """The server, with one bucket."""

    program: Path
    directory: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(20))
    ports: Mapping[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.ports[HTTPS]}"

    @property
    def authority(self) -> Path:
        """The certificate of the authority."""
        return self.directory / "authority.pem"

    @property
    def environment(self) -> Mapping[str, str]:
        """The credentials, as programs of AWS read them; nothing of this machine's."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it."""
        self.certify()
        for _ in range(TRIES):
            self.ports = {name: free_port() for each in PORTS for name in (each, f"{each}.grpc")} | {HTTPS: free_port()}
            if self._starts():
                return
            self.stop()
        raise AssertionError((self.directory / "log").read_text()[-2_000:])

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for name, port in self.ports.items():
            kind = name.replace(".", "-")
            with suppress(FileNotFoundError):
                Path(f"/tmp/seaweedfs-{kind}-{port}.sock").unlink()  # where it always makes them

    def certify(self) -> None:
        """Make an authority, and a certificate of it for this server."""
        new = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]
        authority = ["-subj", "/CN=An authority", "-keyout", "authority.key", "-out", "authority.pem"]
        signed = ["-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.pem", "-CA", "authority.pem"]
        signed += ["-CAkey", "authority.key", "-addext", "subjectAltName=IP:127.0.0.1"]
        signed += ["-addext", "basicConstraints=critical,CA:FALSE"]
        for each in (authority, signed):
            subprocess.run([*new, *each], check=True, capture_output=True, cwd=self.directory)

    def place(self) -> str:
        """Return the URL of an empty part of its bucket, as SIMULATIONS_FILES has it."""
        return f"s3://{BUCKET}/part/{secrets.token_hex(8)}?endpoint={self.url}&style=path"

    def client(self) -> Any:
        """A client with all rights, whatever this process has for credentials."""
        import botocore.session

        session = botocore.session.get_session()
        session.set_credentials(KEY, self.secret)
        return session.create_client("s3", endpoint_url=self.url, region_name="us-east-1")

    def _starts(self) -> bool:
        rights = [{"accessKey": KEY, "secretKey": self.secret}]
        identity = {"name": "tests", "credentials": rights, "actions": ["Admin", "Read", "Write", "List"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        data = tempfile.mkdtemp(prefix="data-", dir=self.directory)  # what another try has left names its ports
        ports = [
            f"-{each}.port{kind and f'.{kind}'}={port}"
            for name, port in self.ports.items()
            for each, _, kind in [name.partition(".")]
        ]
        command = [
            self.program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *ports,
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.directory / 's3.json'}",
            f"-s3.cert.file={self.directory / 'server.pem'}", f"-s3.key.file={self.directory / 'server.key'}",
            "-master.telemetry=false", "-volume.max=20", "-master.volumeSizeLimitMB=256",
        ]  # fmt: skip
        # It reads AWS's variables, and takes their key for its own.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, env=environment,
                preexec_fn=partial(end_with_parent, signal.SIGKILL),
            )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < until:
            with suppress(httpx.HTTPError):
                is_open = httpx.get(self.url, trust_env=False).status_code == httpx.codes.FORBIDDEN
                if is_open and self._is_writable():
                    return True
            time.sleep(0.05)
        return False

    def _is_writable(self) -> bool:
        """Whether its volumes have joined: the door opens before."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            if all(each["Name"] != BUCKET for each in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="there", Body=b"there")
        except (BotoCoreError, ClientError):
            return False
        return True


class Door:
    """A way to the server that a test may shut: connections end, and new ones are reset."""

    def __init__(self, server: Server) -> None:
        self._to = server.ports["s3"]
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._is_shut = False
        self.url = ""

    def shut(self) -> None:
        self._is_shut = True
        for each in self._open:
            each.transport.abort()

    def open(self) -> None:
        self._is_shut = False

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Door]:
        """Serve while the block runs."""
        listener = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listener.close()
            self.shut()
            await asyncio.gather(*self._pumps)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        self._open.add(writer)
        try:
            if self._is_shut:
                writer.transport.abort()
                return
            with suppress(OSError):
                behind, before = await asyncio.open_connection("127.0.0.1", self._to)
                self._open.add(before)
                await asyncio.gather(_pump(reader, before), _pump(behind, writer))
                self._open.discard(before)
        finally:
            self._open.discard(writer)
            self._pumps.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    writer.close()


@contextmanager
def serving() -> Iterator[Server]:
    """Start a server."""
    program = Path(environments.python_of(LOCK, "REQUIRE_BUCKETS")).with_name("weed")
    with tempfile.TemporaryDirectory(prefix="sim-s3-") as directory:
        server = Server(program, Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.stop()
