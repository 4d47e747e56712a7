"""Which of a tracker's variables the child gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.supervisor.sources import variables

URL, SECRET, RUN = "http://127.0.0.1:1", "s" * 40, "r" * 32


def mlflow(environment: dict[str, str], *programs: bytes) -> set[str]:
    return set(variables.mlflow(environment, programs, URL, SECRET, RUN))


def wandb(environment: dict[str, str], directory: Path, *programs: bytes) -> set[str]:
    return set(variables.wandb({"HOME": str(directory), **environment}, programs, directory, URL, SECRET))


def test_mlflow_is_led_here_unless_the_user_has_set_it_up() -> None:
    assert {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN"} <= mlflow({"OTHER": "x"}, b"import mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        assert mlflow({name: "x"}) == set()


@pytest.mark.parametrize(
    "program",
    [
        b'mlflow.set_tracking_uri("sqlite:///x")',
        b'os.environ["MLFLOW_TRACKING_URI"] = "http://server"',
        b'MlflowClient(tracking_uri="http://server")',
        b'MLFlowLogger(tracking_uri = "file:./mlruns")',
    ],
)
def test_a_program_that_sets_an_address_of_its_own_is_left_alone(program: bytes) -> None:
    assert mlflow({}, b"python", program) == set()


@pytest.mark.parametrize(
    "program",
    [
        b'mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])',
        b'uri = os.environ.get("MLFLOW_TRACKING_URI", "http://localhost:5000"); mlflow.set_tracking_uri(uri)',
        b'if os.environ["MLFLOW_TRACKING_URI"] == "x": pass',
        b"MlflowClient(tracking_uri=None)",
    ],
)
def test_a_program_that_reads_the_address_gets_it(program: bytes) -> None:
    assert "MLFLOW_TRACKING_URI" in mlflow({}, b"python", program)


def test_wandb_is_led_here_unless_the_user_has_set_it_up(tmp_path: Path) -> None:
    assert {"WANDB_BASE_URL", "WANDB_API_KEY"} <= wandb({"WANDB_MODE": "offline"}, tmp_path, b"wandb.login()")
    alone = {"WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL"}
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        assert wandb({name: "x"}, tmp_path) == alone
    assert wandb({}, tmp_path, b'wandb.login(key="x")') == alone
    assert wandb({}, tmp_path, b"sh -c", b"WANDB_API_KEY=x python train.py") == alone
    assert "WANDB_API_KEY" in wandb({}, tmp_path, b'wandb.login(key=os.environ["WANDB_API_KEY"])')


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".netrc", "machine api.wandb.ai\n  login user\n  password x\n"),
        ("_netrc", "machine wandb.example.org login user password x"),
        (".config/wandb/settings", "[default]\nbase_url = https://wandb.example.org\n"),
        ("wandb/settings", "[default]\napi_key = x\n"),
    ],
)
def test_a_login_kept_in_a_file_is_the_users(file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    assert "WANDB_API_KEY" not in wandb({}, tmp_path)
    (tmp_path / file).write_text("machine example.org login user password x")
    assert "WANDB_API_KEY" in wandb({}, tmp_path)


def test_variables_name_other_places_for_these_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "netrc").write_text("machine api.wandb.ai login user password x")
    (tmp_path / "elsewhere" / "settings").write_text("base_url = x")
    for name, place in (("NETRC", "elsewhere/netrc"), ("WANDB_CONFIG_DIR", "elsewhere")):
        assert "WANDB_API_KEY" not in wandb({name: str(tmp_path / place)}, tmp_path)


def test_the_program_is_what_the_command_names(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mlflow.set_tracking_uri('x')")
    command = ["python", "-u", "train.py", "--lr", "0.1"]
    assert mlflow({}, *variables.programs(command, tmp_path)) == set()
    assert mlflow({}, *variables.programs(["python", "-c", "mlflow.set_tracking_uri('x')"], tmp_path)) == set()
    assert mlflow({}, *variables.programs(["python", "none.py", "\udcff", "nul\0.py"], tmp_path))


def test_the_loopback_address_needs_no_proxy() -> None:
    assert variables.without_proxy({}, "127.0.0.1") == {}
    assert variables.without_proxy({"HTTP_PROXY": "http://p", "no_proxy": "a,b"}, "127.0.0.1") == {
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "a,b,127.0.0.1",
    }
