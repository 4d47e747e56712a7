"""Every knob of the service, on one screen, with the units in the names.

Nothing else reads the environment. A value that can't be understood is refused at start with the name of the
variable, what was expected and what was given (`SettingsError`); the object is frozen and passed along.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import structlog
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsError(Exception):
    """The environment holds a value that can't be used; the message is a sentence for the operator."""


def _plain(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


class Settings(BaseSettings):
    """What the operator chose. `HOST`, `PORT` and `DATABASE_URL` bare, all else with the prefix `SIMULATIONS_`."""

    model_config = SettingsConfigDict(env_prefix="SIMULATIONS_", frozen=True, extra="ignore", populate_by_name=True)

    # Where
    host: str = Field("127.0.0.1", validation_alias=_plain("HOST"))
    port: int = Field(8000, ge=0, le=65535, validation_alias=_plain("PORT"))
    database_url: str | None = Field(None, validation_alias=_plain("DATABASE_URL"))
    data_dir: Path | None = None  # None: the XDG data directory, as root /var/lib/simulations
    public_url: str | None = None  # where supervisors reach the API; None: http://127.0.0.1:PORT
    insecure: bool = False  # allow a HOST that is not loopback, without any login

    # The database
    database_pool_size: int = Field(10, ge=1, le=500)  # connections of each process
    notifications: bool = True  # LISTEN/NOTIFY; off: everything works by polling, only slower

    # Scheduling
    tick_seconds: float = Field(1.0, gt=0, le=60)  # planning without a notification
    lease_seconds: float = Field(30.0, ge=1, le=86_400)  # silence after which an attempt counts as lost
    heartbeat_seconds: float = Field(2.0, gt=0, le=3600)  # how often an idle supervisor reports
    stop_grace_seconds: float = Field(10.0, ge=0, le=3600)  # between SIGTERM and SIGKILL
    retry_backoff_seconds: float = Field(5.0, ge=0, le=86_400)  # before the first retry; doubles, at most 100 times it

    # This host as a machine
    local_machine: bool = True  # off: only machines made by createMachine
    machine_name: str | None = None  # None: the host's name
    machine_price_per_hour: Decimal = Field(Decimal(0), ge=0, max_digits=12, decimal_places=6)
    working_directory_roots: Annotated[tuple[Path, ...], NoDecode] = ()  # colon-separated; empty: anywhere
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")  # one per installation (ISO 4217)

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("working_directory_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("expected an address like https://simulations.example.org")
        return value.rstrip("/") if value else value

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def api_url(self) -> str:
        """The GraphQL address that supervisors on this host report to."""
        if self.public_url:
            return f"{self.public_url}/graphql"
        host = self.host if self.host not in ("0.0.0.0", "::", "localhost") else "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/graphql"


def configure_logs(settings: Settings) -> None:
    """Structured logs on stderr: for people on a terminal, as JSON lines elsewhere."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
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
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def load(**overrides: object) -> Settings:
    """Read the environment once.

    Raises `SettingsError`: one line for each value that can't be used.
    """
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(problem)) for problem in error.errors())) from None
    if not settings.is_loopback and not settings.insecure:
        raise SettingsError(
            f"HOST={settings.host} can be reached from other machines, and this version has no login: whoever "
            "reaches it can run commands here. Use HOST=127.0.0.1, or set SIMULATIONS_INSECURE=1 if a firewall "
            "or a container network guards it."
        )
    return settings


def _sentence(problem: dict[str, object]) -> str:
    location = problem["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else "settings"
    variable = name.upper() if name.upper() in ("HOST", "PORT", "DATABASE_URL") else f"SIMULATIONS_{name.upper()}"
    return f"{variable}: {problem['msg']}, got {problem['input']!r}"
