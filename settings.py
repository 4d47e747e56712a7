"""Settings of the service, from environment variables, with units in the names.

No other module reads the environment. An invalid value is refused at start with the name of the variable, the
expected and the given value (`SettingsError`). The object is frozen and passed as an argument.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import shlex
import ssl
import sys
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args
from urllib.parse import parse_qsl, quote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

# A host name, *. and a name for all subdomains, or an address.
HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f]*:[0-9a-f:.]+", re.IGNORECASE)
NAME_PATTERN = re.compile(r"([a-z0-9_-]+\.)*(?![0-9]+$)[a-z0-9_-]+", re.IGNORECASE)  # ends in a number: no name
ORIGIN_PATTERN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:]+\])(?::([0-9]{1,5}))?/?")
CLUSTER_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
BUCKET_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
PREFIX_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,7}")
BUCKET_EXAMPLE = "s3://bucket/prefix?endpoint=https://s3.example.org"
TOKEN_PATTERN = re.compile(r"sim_[A-Za-z0-9_-]{43,200}")
MOST_PASSWORD_CHARACTERS = 1_000
CONNECT_SECONDS = 5.0  # to a bucket
ANSWER_SECONDS = 20.0
BUCKET_CONNECTIONS = 8
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")
MOST_AUTHORITIES = 256 << 10  # characters; they travel with each group of signed URLs
Style = Literal["auto", "path", "virtual"]
DEFAULT_PORTS = {"http": "80", "https": "443"}


class SettingsError(Exception):
    """The environment holds an invalid value; the message is a sentence for the operator."""


def _plain(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


class RayNodes(BaseModel):
    """A type of node that the autoscaler of a Ray cluster can start: `[CLUSTER.starts.TYPE]` in its file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cpus: float = Field(gt=0, le=1e6)
    memory_gib: float = Field(gt=0, le=1e9)
    gpus: int = Field(0, ge=0, le=1_000)
    gpu_model: str | None = None
    labels: dict[str, str] = {}  # that the autoscaler gives to its nodes
    most: int = Field(1, ge=1, le=1_000)  # nodes that it may start


class RayCluster(BaseModel):
    """A Ray cluster whose nodes are machines: one table of the file `SIMULATIONS_RAY_CLUSTERS`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    address: str  # of the head, with the port of Ray's dashboard
    token_file: Path | None = None  # one line: the token of RAY_AUTH_MODE=token
    ca_file: Path | None = None  # authorities for https beside the system's
    directory: str | None = Field(None, pattern="^/")  # on the nodes, for attempts and checkpoints; None: temporary
    api_url: str | None = None  # URL of the GraphQL API as nodes reach it; None: by SIMULATIONS_PUBLIC_URL
    price_per_hour: Decimal = Field(Decimal(0), ge=0, max_digits=12, decimal_places=6)  # of a node without another
    prices: dict[str, Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)]] = {}  # by instance type
    starts: dict[str, RayNodes] = {}  # what its autoscaler can start, by instance type

    @field_validator("address", "api_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("expected a URL like https://ray.example.org:8265")
        return value.rstrip("/") if value else value

    @property
    def shows_token(self) -> bool:
        """Whether the token would cross the network unencrypted."""
        parts = urlsplit(self.address)
        return self.token_file is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or "")

    def read_token(self) -> str | None:
        """Return the token in `token_file`, or None. Raises `SettingsError`, which never quotes it."""
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise SettingsError(f"Ray cluster {self.name}: {self.token_file} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not re.fullmatch(r"[!-~]{1,1000}", token):
            raise SettingsError(f"Ray cluster {self.name}: expected one line with the token in {self.token_file}.")
        return token

    def tls(self) -> ssl.SSLContext:
        """Return a context that verifies the head's certificate. Raises `SettingsError` for an unusable `ca_file`."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except OSError as error:  # ssl.SSLError among them
                raise SettingsError(f"Ray cluster {self.name}: {self.ca_file} can't be used: {error}") from None
        return context


@dataclass(frozen=True, slots=True)
class Bucket:
    """An S3-compatible bucket as the store of files: `s3://NAME/PREFIX?endpoint=URL&region=REGION&style=path&ca=FILE`.

    Credentials, and a region that the URL does not name, come from where AWS's programs have them: AWS_ACCESS_KEY_ID
    and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, the role of the machine.
    """

    name: str
    prefix: str = ""  # of all keys: "" or "runs/files/"
    endpoint: str | None = None  # None: AWS, or AWS_ENDPOINT_URL_S3
    region: str | None = None  # None: AWS_REGION, AWS_DEFAULT_REGION, the profile's
    style: Style = "auto"  # where its name goes: host/NAME/key, or NAME.host/key
    ca: Path | None = None  # authorities of its certificate, for the service and machines; None: the system's

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL. Raises ValueError with a sentence that quotes no credentials."""
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True)
        options, prefix = dict(given), parts.path.strip("/")
        if "@" in parts.netloc:
            raise ValueError("expected no credentials in the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if not BUCKET_PATTERN.fullmatch(parts.netloc) or parts.fragment:
            raise ValueError(f"expected a bucket like {BUCKET_EXAMPLE}")
        if prefix and (not PREFIX_PATTERN.fullmatch(prefix) or any(set(part) == {"."} for part in prefix.split("/"))):
            raise ValueError("expected a prefix of at most 8 parts of letters, digits, dots, - and _")
        if len(options) != len(given) or not options.keys() <= {"endpoint", "region", "style", "ca"}:
            raise ValueError("expected no other options of a bucket than endpoint, region, style and ca, each once")
        endpoint = urlsplit(options.get("endpoint", "https://s3"))
        if (
            endpoint.scheme not in ("http", "https")
            or not endpoint.hostname
            or endpoint.query
            or "@" in endpoint.netloc
        ):
            raise ValueError("expected an endpoint like https://s3.example.org")
        style = options.get("style", "auto")
        if style not in get_args(Style):
            raise ValueError("expected the style path or virtual")
        if not re.fullmatch(r"[a-z0-9-]{1,40}", options.get("region", "auto")):
            raise ValueError("expected a region like eu-central-1")
        ca = Path(options["ca"]) if "ca" in options else None
        if ca is not None and (not ca.is_absolute() or "\0" in options["ca"] or endpoint.scheme != "https"):
            raise ValueError("expected the absolute path of a file as ca, and an endpoint with https")
        return cls(
            parts.netloc,
            f"{prefix}/" if prefix else "",
            options.get("endpoint"),
            options.get("region"),
            cast("Style", style),
            ca,
        )

    def authorities(self) -> str:
        """Read the certificates of `ca`, and nothing else that its file holds; "" without one. Raises ValueError."""
        if self.ca is None:
            return ""
        try:
            text = self.ca.read_text(errors="replace")
            certificates = "\n".join(CERTIFICATE.findall(text))
            if not certificates or len(certificates) > MOST_AUTHORITIES:
                raise ValueError(f"{self.ca} is to hold certificates (PEM) of at most {MOST_AUTHORITIES >> 10} KiB")
            ssl.create_default_context(cadata=certificates)
        except OSError as error:  # ssl.SSLError among them
            raise ValueError(f"{self.ca} can't be used: {error}") from None
        return certificates

    @property
    def is_unencrypted(self) -> bool:
        """Whether files would cross the network unencrypted."""
        parts = urlsplit(self.endpoint or "https:")
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")

    def connect(self) -> Any:
        """Return botocore's client, which connects when it is used. Raises botocore's errors, and ValueError.

        Checksums only where they are asked for: servers that are older than botocore's default ones refuse those.
        """
        import botocore.session  # 0.1 s, and only with a bucket
        from botocore.config import Config

        self.authorities()  # botocore fails later, and without a sentence
        session = botocore.session.get_session()
        session.full_config["profiles"]  # a broken ~/.aws fails here, with its own words
        return session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region or session.get_config_variable("region") or "us-east-1",
            verify=str(self.ca) if self.ca is not None else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": self.style},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=ANSWER_SECONDS,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=BUCKET_CONNECTIONS,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


class Settings(BaseSettings):
    """Settings: `HOST`, `PORT` and `DATABASE_URL` without a prefix, all others with the prefix `SIMULATIONS_`.

    An empty variable counts as not set: an empty HOST would mean every address, an empty path this directory.
    """

    model_config = SettingsConfigDict(
        env_prefix="SIMULATIONS_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments and the environment. There are no files; looking for values in them took half of the time."""
        return init_settings, env_settings

    # Where
    host: str = Field("127.0.0.1", validation_alias=_plain("HOST"))  # address to listen on
    port: int = Field(8000, ge=0, le=65535, validation_alias=_plain("PORT"))  # 0: any free port
    database_url: str | None = Field(None, validation_alias=_plain("DATABASE_URL"))  # None: an embedded PostgreSQL
    database_password_file: Path | None = None  # one line: the password, which DATABASE_URL must then omit
    data_dir: Path | None = None  # None: the XDG data directory, as root /var/lib/simulations
    public_url: str | None = None  # URL of the API for supervisors; None: http://127.0.0.1:PORT

    # Access; see README and SECURITY.md
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()  # host names of the service; *.example.org
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()  # other origins whose pages may use the API (CORS)
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()  # whose X-Forwarded-* count: addresses, networks, names
    admin_token_file: Path | None = None  # holds a token that gets the role ADMIN at start; readable by its owner only
    submits_per_minute: int = Field(6_000, ge=1)  # per token and process; also the burst
    connections: int = Field(20_000, ge=10)  # per process, including WebSockets; further ones are closed at once

    drain_seconds: float = Field(0.0, ge=0, le=600)  # at shutdown: still serves, but is not ready

    # The database
    database_pool_size: int = Field(10, ge=1, le=500)  # connections of each process
    notifications: bool = True  # LISTEN/NOTIFY; off: polling, slower

    # WebSockets
    socket_ping_seconds: float = Field(20.0, gt=0, le=3600)  # three unanswered pings in a row close the socket
    socket_stall_seconds: float = Field(30.0, gt=0, le=3600)  # a client that reads nothing for this long is closed
    sockets_per_client: int = Field(5000, ge=1)  # per address; of IPv6 per /64

    # Scheduling
    tick_seconds: float = Field(1.0, gt=0, le=60)  # planning without a notification
    lease_seconds: float = Field(30.0, ge=1, le=86_400)  # silence after which an attempt counts as lost
    heartbeat_seconds: float = Field(2.0, gt=0, le=3600)  # how often an idle supervisor reports
    stop_grace_seconds: float = Field(10.0, ge=0, le=3600)  # between SIGTERM and SIGKILL
    system_metrics_seconds: float = Field(10.0, ge=0, le=86_400)  # interval of system metrics; 0: none
    retry_backoff_seconds: float = Field(5.0, ge=0, le=86_400)  # before the first retry; doubles, at most 100 times it
    max_wait_seconds: float = Field(86_400.0, ge=0, le=31_622_400)  # the oldest beyond it goes first of all; 0: never
    min_run_seconds: float = Field(300.0, ge=0, le=86_400)  # how long an attempt runs before it may be preempted
    fair_share: bool = True  # runs of projects that have used less than their share go before equal ones
    fair_share_half_life_seconds: float = Field(604_800.0, ge=60, le=31_622_400)  # use counts half after this time
    time_value: Decimal = Field(Decimal(0), ge=0, max_digits=12, decimal_places=6)  # of an hour that a GPU is faster
    scheduler_metrics_port: int | None = Field(None, ge=1, le=65535)  # Prometheus metrics; None: no endpoint
    scheduler_metrics_host: str = "127.0.0.1"  # address of that endpoint, which has no login

    # Alerts
    alert_private_networks: Annotated[tuple[str, ...], NoDecode] = ()  # whose addresses alerts may be sent to
    alert_wait_seconds: float = Field(3600.0, ge=0, le=31_622_400)  # in the queue, before it is an alert; 0: never

    # This host as a machine
    local_machine: bool = True  # off: only machines created by createMachine
    machine_name: str | None = None  # None: the host's name
    machine_price_per_hour: Decimal = Field(Decimal(0), ge=0, max_digits=12, decimal_places=6)
    working_directory_roots: Annotated[tuple[Path, ...], NoDecode] = ()  # empty: anywhere
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")  # one per installation (ISO 4217)
    time_zone: str = "UTC"  # by whose calendar budgets and costs have days, weeks and months; Europe/Berlin

    # Ray clusters
    ray_clusters: Path | None = None  # a TOML file: clusters whose nodes are machines; see clusters.md

    # Files
    files: str | None = None  # a directory, a bucket (s3://bucket/prefix?endpoint=URL) or none; None: below `data_dir`
    files_shared: bool = False  # the directory is a mount that every machine has at the same path
    files_quota_gib: float = Field(0.0, ge=0, le=1e9)  # the most that the files of a project may have; 0: no limit
    files_checkpoint_days: float = Field(0.0, ge=0, le=36_600)  # checkpoints are kept so long after the end; 0: always
    package_mib: float = Field(100.0, gt=0, le=1e6)  # the largest package of code (`--workdir`)
    files_save_seconds: float = Field(600.0, gt=0, le=86_400)  # the longest upload after the end of a simulation

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # least severe level that is logged

    @field_validator("working_directory_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("allowed_hosts", "allowed_origins", "trusted_proxies", "alert_private_networks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(f"expected a time zone of this system, like UTC or Europe/Berlin, not {value!r}") from None
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not HOST_PATTERN.fullmatch(value):
                raise ValueError(f"expected names like simulations.example.org or *.example.org, not {value!r}")
        return tuple(value.lower() for value in values)

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(value) for value in values)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ipaddress.ip_network(value)
            except ValueError as error:
                if not NAME_PATTERN.fullmatch(value):
                    expected = "addresses like 10.0.0.7, networks like 10.0.0.0/8 or names like proxy.example.org"
                    raise ValueError(f"expected {expected}: {error}") from None
        return values

    @field_validator("alert_private_networks")
    @classmethod
    def _private_networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ipaddress.ip_network(value)
            except ValueError as error:
                raise ValueError(f"expected networks like 10.2.0.0/16 or addresses like 10.2.0.7: {error}") from None
        return values

    @field_validator("files")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("s3:"):
            Bucket.parse(value)
        elif value is not None and value != "none" and not value.startswith("/"):
            raise ValueError(f"expected a directory like /srv/files, a bucket like {BUCKET_EXAMPLE}, or none")
        return value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("expected an address like https://simulations.example.org")
        return value.rstrip("/") if value else value

    @property
    def alert_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Networks that alerts may be sent to although they are not public."""
        return tuple(ipaddress.ip_network(value) for value in self.alert_private_networks)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach the service."""
        return _is_loopback(self.host)

    @property
    def why_login(self) -> str | None:
        """Return why every request needs a token; None if a request without a token has the role ADMIN.

        None only if no setting indicates users of other hosts: a proxy in front, or another name than localhost,
        brings their requests to the loopback address too.
        """
        public = urlsplit(self.public_url).hostname if self.public_url else None
        if not self.is_loopback:
            return f"HOST={self.host} can be reached from other machines"
        if self.trusted_proxies:
            return "SIMULATIONS_TRUSTED_PROXIES says that requests come from other machines, through a proxy"
        if self.allowed_hosts:
            return "SIMULATIONS_ALLOWED_HOSTS says that it is reached by other names than localhost"
        if public and not _is_loopback(public):
            return f"SIMULATIONS_PUBLIC_URL says that other machines reach it, as {public}"
        return None

    @property
    def requires_login(self) -> bool:
        """Whether all requests except pages and probes need a token."""
        return self.why_login is not None

    def read_admin_token(self) -> str | None:
        """Return the token in `admin_token_file`, or None. Raises `SettingsError`, which never quotes the token."""
        path = self.admin_token_file
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(1_000).decode("ascii", errors="replace").strip()
        except OSError as error:
            raise SettingsError(f"SIMULATIONS_ADMIN_TOKEN_FILE: {path} can't be read: {error.strerror}") from None
        if mode & 0o077:
            raise SettingsError(
                f"SIMULATIONS_ADMIN_TOKEN_FILE: others than its owner may use {path} "
                f"(mode {mode & 0o777:04o}). Run: chmod 600 {shlex.quote(str(path))}"
            )
        if not TOKEN_PATTERN.fullmatch(text):
            raise SettingsError(
                f"SIMULATIONS_ADMIN_TOKEN_FILE: expected one token in {path}: sim_ and at least 43 random letters, "
                "digits, - or _. Make one: "
                """python -c "import secrets; print('sim_' + secrets.token_urlsafe(32))\""""
            )
        return text

    def read_database_url(self) -> str | None:
        """Return `database_url` with the password of `database_password_file`.

        Raises `SettingsError`, which never quotes the password. The file's mode is not checked: secrets mounted into
        containers are often readable by all of their users.
        """
        path, url = self.database_password_file, self.database_url
        if path is None:
            return url
        if url is None:
            raise SettingsError("SIMULATIONS_DATABASE_PASSWORD_FILE: DATABASE_URL is not set, expected it beside it.")
        if re.search(r"://[^/?#@]*:[^/?#]*@|[?&]password=", url):
            raise SettingsError("SIMULATIONS_DATABASE_PASSWORD_FILE: DATABASE_URL has a password too, expected one.")
        try:
            with path.open(encoding="utf-8") as file:
                password = file.read(MOST_PASSWORD_CHARACTERS + 2).removesuffix("\n")
        except OSError as error:
            raise SettingsError(f"SIMULATIONS_DATABASE_PASSWORD_FILE: {path} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            password = ""
        if not 1 <= len(password) <= MOST_PASSWORD_CHARACTERS or not password.isprintable():
            raise SettingsError(f"SIMULATIONS_DATABASE_PASSWORD_FILE: expected one line with the password in {path}.")
        return f"{url}{'&' if '?' in url else '?'}password={quote(password, safe='')}"

    def read_ray_clusters(self) -> tuple[RayCluster, ...]:
        """Return the clusters in the file `ray_clusters`. Raises `SettingsError`, which never quotes a token."""
        path = self.ray_clusters
        if path is None:
            return ()
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(f"SIMULATIONS_RAY_CLUSTERS: {path} can't be read: {why}") from None
        found: list[RayCluster] = []
        problems: list[str] = []
        for name, table in tables.items():
            if not CLUSTER_PATTERN.fullmatch(name):
                problems.append(f"{name}: expected a name of at most 40 lower-case letters, digits and -")
            elif not isinstance(table, dict):
                problems.append(f'{name}: expected a table, [{name}], and below it address = "https://HOST:8265"')
            else:
                try:
                    found.append(RayCluster.model_validate({**table, "name": name}))
                except ValidationError as error:
                    problems += [f"{name}.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        if problems:
            raise SettingsError("\n".join(f"SIMULATIONS_RAY_CLUSTERS: {path}: {problem}" for problem in problems))
        return tuple(found)

    @property
    def keeps_files(self) -> bool:
        """Whether checkpoints and outputs of simulations are kept in a store."""
        return self.files != "none"

    @property
    def bucket(self) -> Bucket | None:
        """The bucket that files are kept in, if it is one."""
        return Bucket.parse(self.files) if self.files is not None and self.files.startswith("s3:") else None

    @property
    def save_seconds(self) -> float:
        """For how long files are uploaded after the end of a simulation; 0 without a store."""
        return self.files_save_seconds if self.keeps_files else 0.0

    @property
    def api_url(self) -> str:
        """URL of the GraphQL API for supervisors on this host."""
        if self.public_url:
            return f"{self.public_url}/graphql"
        host = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/graphql"


def configure_logs(settings: Settings) -> None:
    """Configure structured logs on stderr: readable on a terminal, else JSON lines; libraries' warnings included."""
    renderer: structlog.typing.Processor = (
        # Plain tracebacks: the default ones show all variables, tokens and environments among them.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not sys.stderr.isatty():
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[libraries])
    logging.captureWarnings(capture=True)


def load(**overrides: object) -> Settings:
    """Read the settings from the environment, once.

    Raises `SettingsError`: one line for each invalid value.
    """
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(problem)) for problem in error.errors())) from None
    return settings.model_copy(update={"database_url": settings.read_database_url(), "database_password_file": None})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(value: str) -> str:
    """Normalise an origin as browsers write it: lower case, without the scheme's default port."""
    found = ORIGIN_PATTERN.fullmatch(value.lower())
    if found is None:
        raise ValueError(f"expected origins like https://pages.example.org, each by its whole name, not {value!r}")
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{int(port)}"


def _sentence(problem: dict[str, object]) -> str:
    location = problem["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else "settings"
    variable = name.upper() if name.upper() in ("HOST", "PORT", "DATABASE_URL") else f"SIMULATIONS_{name.upper()}"
    given = re.sub(r"://\S*@", "://***@", repr(problem["input"]))  # credentials in a URL
    return f"{variable}: {problem['msg']}, got {given}"
