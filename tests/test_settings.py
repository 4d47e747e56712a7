"""Settings that are composed from several sources, and the configuration of logs."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import structlog

from db.connection import parse_url
from settings import Bucket, RayCluster, Settings, SettingsError, configure_logs, load

PASSWORD = "se@cr:et/?#&% x"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the file that the setting names, with a password in it."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("SIMULATIONS_DATABASE_PASSWORD_FILE", str(path))
    return path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user@host/base", "postgresql://user@host/base?"),
        ("postgresql://user@a:1,b:2/base?sslmode=require", "postgresql://user@a:1,b:2/base?sslmode=require&"),
        ("postgresql://user@/base?host=/run/postgresql", "postgresql://user@/base?host=%2Frun%2Fpostgresql&"),
    ],
)
def test_the_password_of_the_file_is_put_into_the_url(
    file: Path, monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    found = load().database_url
    assert found is not None
    address = parse_url(found)
    assert address.dsn == f"{expected}password=se%40cr%3Aet%2F%3F%23%26%25%20x"
    assert "se" not in str(address).replace("base", "")


@pytest.mark.parametrize(
    ("url", "content", "why"),
    [
        (None, b"se@cret", "DATABASE_URL is not set"),
        ("postgresql://user:other@host/base", b"se@cret", "has a password too"),
        ("postgresql://user@host/base?password=other", b"se@cret", "has a password too"),
        ("postgresql://user@host/base", b"", "expected one line"),
        ("postgresql://user@host/base", b"\n", "expected one line"),
        ("postgresql://user@host/base", b"se@cret\nse@cret\n", "expected one line"),
        ("postgresql://user@host/base", b"\xffse@cret", "expected one line"),
        ("postgresql://user@host/base", b"se@cret" * 1_000, "expected one line"),
        ("postgresql://user@host/base", None, "can't be read: No such file"),
    ],
)
def test_an_invalid_password_file_is_refused_and_not_quoted(
    file: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, content: bytes | None, why: str
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    if url is not None:
        monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError, match=f"^SIMULATIONS_DATABASE_PASSWORD_FILE: .*{why}") as refused:
        load()
    assert "se@cret" not in str(refused.value)
    assert "other" not in str(refused.value)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_traceback_in_the_log_shows_no_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    def fail(_bearer: str) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    before = structlog.get_config()
    configure_logs(Settings())
    try:
        fail("sim_" + "x" * 43)
    except RuntimeError as defect:
        structlog.get_logger().error("resolver_failed", exc_info=defect)
    finally:
        structlog.configure(**before)
    told = capsys.readouterr().err
    assert "a defect" in told
    assert "x" * 43 not in told


LIBRARIES = """
import logging, warnings
from settings import configure_logs, load
configure_logs(load())
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("asyncio").error("A task %s", "failed", exc_info=True)
warnings.warn("This is never awaited.", RuntimeWarning)
logging.getLogger("uvicorn").info("Below the level of the log.")
"""


def test_logs_and_warnings_of_libraries_are_lines_of_json_too() -> None:
    ran = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=60, check=True)
    failed, warned = map(json.loads, ran.stderr.splitlines())
    assert (failed["event"], failed["level"], failed["logger"]) == ("A task failed", "error", "asyncio")
    assert "ZeroDivisionError" in failed["exception"]
    assert "This is never awaited." in warned["event"]
    assert (warned["level"], warned["logger"]) == ("warning", "py.warnings")


def test_networks_of_alerts_are_networks_or_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATIONS_ALERT_PRIVATE_NETWORKS", "10.2.0.0/16, fd00::7")
    assert [str(each) for each in load().alert_networks] == ["10.2.0.0/16", "fd00::7/128"]
    for wrong in ("hooks.example.org", "10.2.0.1/16"):
        monkeypatch.setenv("SIMULATIONS_ALERT_PRIVATE_NETWORKS", wrong)
        with pytest.raises(SettingsError, match=r"SIMULATIONS_ALERT_PRIVATE_NETWORKS: .*expected networks like"):
            load()


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that SIMULATIONS_RAY_CLUSTERS names."""
    monkeypatch.setenv("SIMULATIONS_RAY_CLUSTERS", str(tmp_path / "clusters.toml"))
    return tmp_path / "clusters.toml"


def test_ray_clusters_are_tables_of_a_file(clusters: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token\n")
    clusters.write_text(
        f'[gpu]\naddress = "https://ray.example.org:8265/"\ntoken_file = "{tmp_path}/token"\nprice_per_hour = "1.20"\n'
        'directory = "/mnt/shared"\nprices = { big = "32.77", "p5.48xlarge" = 98 }\n'
        '[cpu-2]\naddress = "http://127.0.0.1:8265"\n'
    )
    gpu, cpu = load().read_ray_clusters()
    assert (gpu.name, gpu.address, gpu.directory) == ("gpu", "https://ray.example.org:8265", "/mnt/shared")
    assert (gpu.price_per_hour, gpu.prices) == (Decimal("1.20"), {"big": Decimal("32.77"), "p5.48xlarge": Decimal(98)})
    assert (gpu.read_token(), cpu.read_token()) == ("a-token", None)
    assert (cpu.name, cpu.token_file, cpu.price_per_hour) == ("cpu-2", None, 0)
    assert gpu.tls().verify_mode is ssl.CERT_REQUIRED
    assert gpu.tls().check_hostname


def test_without_the_setting_there_are_no_clusters() -> None:
    assert load().read_ray_clusters() == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "can't be read: No such file"),
        ("[gpu", r"can't be read: .*at end of document"),
        ("gpu = 3", r"gpu: expected a table, \[gpu\]"),
        ('[GPU]\naddress = "http://h"', "GPU: expected a name"),
        ("[gpu]", "gpu.address: Field required"),
        ('[gpu]\naddress = "ray://h:10001"', "gpu.address: .*expected a URL like https://"),
        ('[gpu]\naddress = "http://h"\ntoken = "secret"', "gpu.token: Extra inputs"),
        ('[gpu]\naddress = "http://h"\n[gpu.starts.big]\ncpus = 8', "gpu.starts.big.memory_gib: Field required"),
        ('[gpu]\naddress = "http://h"\nprices = { big = -1 }', "gpu.prices.big: .*greater than or equal to 0"),
        ('[gpu]\naddress = "http://h"\ndirectory = "relative"', "gpu.directory: "),
    ],
)
def test_a_file_of_clusters_that_makes_no_sense_is_refused_with_the_place(
    clusters: Path, content: str | None, why: str
) -> None:
    if content is not None:
        clusters.write_text(content)
    with pytest.raises(SettingsError, match=f"SIMULATIONS_RAY_CLUSTERS: .*{why}") as refused:
        load().read_ray_clusters()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", "two\nlines of it\n", "ä"])
def test_a_token_of_a_cluster_that_is_none_is_refused_without_quoting_it(tmp_path: Path, content: str | None) -> None:
    cluster = RayCluster(name="gpu", address="http://h", token_file=tmp_path / "token")
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(SettingsError, match="Ray cluster gpu: ") as refused:
        cluster.read_token()
    assert "lines" not in str(refused.value)


def test_an_authority_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=r"Ray cluster gpu: .*can't be used"):
            RayCluster(name="gpu", address="https://h", ca_file=path).tls()


# --- a bucket of files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://files", Bucket("files")),
        ("s3://files/", Bucket("files")),
        ("s3://my.files/a/b/", Bucket("my.files", "a/b/")),
        (
            "s3://files/a?endpoint=http://127.0.0.1:9000&region=eu-central-1&style=path",
            Bucket("files", "a/", "http://127.0.0.1:9000", "eu-central-1", "path"),
        ),
        (
            "s3://files?endpoint=https://s3.lan:9000&ca=/etc/ssl/our.pem",
            Bucket("files", endpoint="https://s3.lan:9000", ca=Path("/etc/ssl/our.pem")),
        ),
    ],
)
def test_a_bucket_is_read_from_one_url(url: str, bucket: Bucket) -> None:
    assert Settings(files=url).bucket == bucket
    assert Settings(files=url).save_seconds == 600


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://", "expected a bucket like"),
        ("s3:files", "expected a bucket like"),
        ("s3://Files", "expected a bucket like"),
        ("s3://files/../other", "expected a prefix"),
        ("s3://files/a b", "expected a prefix"),
        ("s3://files?region=eu&region=us", "each once"),
        ("s3://files?secret=1", "expected no other options"),
        ("s3://files?endpoint=ftp://host", "expected an endpoint"),
        ("s3://files?endpoint=https://", "expected an endpoint"),
        ("s3://files?style=wild", "expected the style"),
        ("s3://files?region=EU WEST", "expected a region"),
        ("s3://files?ca=our.pem", "expected the absolute path"),
        ("s3://files?ca=", "expected the absolute path"),
        ("s3://files?endpoint=http://s3.lan&ca=/our.pem", "an endpoint with https"),
        ("files", "expected a directory"),
    ],
)
def test_a_bucket_that_can_not_be_is_refused(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"SIMULATIONS_FILES: .*{why}"):
        load(files=url)


@pytest.mark.parametrize("url", ["s3://KEY:se/cr+et@files", "s3://files?endpoint=https://KEY:se@host"])
def test_credentials_in_the_url_of_a_bucket_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(files=url)
    assert "KEY" not in str(caught.value).replace("AWS_ACCESS_KEY_ID", "").replace("AWS_SECRET_ACCESS_KEY", "")
    assert "se@" not in str(caught.value)


def test_of_the_file_of_a_bucket_authority_its_certificates_are_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "our.pem"
    bucket = Bucket("files", ca=path)
    with pytest.raises(ValueError, match="No such file"):
        bucket.authorities()
    for text, why in (
        ("", "is to hold"),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n", "is to hold"),
        (SPOILT, "can't be used"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=why):
            bucket.authorities()
    assert Bucket("files").authorities() == ""


SPOILT = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def test_only_a_bucket_elsewhere_without_tls_is_unencrypted() -> None:
    given = ("s3://files", "s3://files?endpoint=https://s3.example.org", "s3://files?endpoint=http://127.0.0.1:1")
    assert [Bucket.parse(url).is_unencrypted for url in given] == [False] * 3
    assert Bucket.parse("s3://files?endpoint=http://s3.example.org").is_unencrypted
