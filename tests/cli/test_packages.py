"""`--workdir`: what is sent, once, and what commands do with it; and `files get --kind package`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

from cli import packages
from cli.answers import Package
from cli.errors import ServerRefused
from cli.server import Server

Run = Callable[..., Result]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    directory = tmp_path / "mnist"
    directory.mkdir()
    (directory / "train.py").write_text("1")
    return directory


@pytest.fixture
def creates(server: Any, simulation: Any) -> Any:
    """A server on which simulations can be created."""
    payload = {"simulation": simulation(), "userErrors": []}
    server.answers["Create"] = lambda _: {"createSimulation": payload}
    server.answers["CreateAll"] = lambda given: {
        "createSimulations": {"simulations": [simulation()] * len(given["input"]["simulations"]), "userErrors": []}
    }
    return server


def sent(server: Any) -> list[str]:
    """The names in the packages that the server has."""
    found = []
    for content in server.packages.values():
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            found += archive.getnames()
    return found


def test_a_directory_is_sent_once_and_named_in_the_input(run: Run, creates: Any, code: Path) -> None:
    words = ("submit", "--workdir", str(code), "--", "python", "train.py")
    done = run(*words, env={"SIMULATIONS_TOKEN": "sim_secret"})
    assert done.exit_code == 0, done.stderr
    assert "Packed 1 file," in done.stderr
    assert "uploaded." in done.stderr
    assert "starts in a directory of its own" not in done.stderr
    [(digest, project)] = creates.packages
    assert project is None
    assert creates.variables("Create")[0]["input"] == {
        "entrypoint": ["python", "train.py"], "package": {"digest": digest, "name": "mnist"},
    }  # fmt: skip
    assert {each["authorization"] for each in creates.headers} == {"Bearer sim_secret"}
    assert creates.package_requests == ["HEAD", "PUT"]
    done = run(*words)
    assert "stored already." in done.stderr
    assert creates.package_requests == ["HEAD", "PUT", "HEAD"]


def test_simulations_of_a_file_share_their_package_by_project(run: Run, creates: Any, code: Path) -> None:
    file = code.parent / "order.yaml"
    file.write_text(
        "- {entrypoint: [a], workdir: mnist}\n- {entrypoint: [b], workdir: ./mnist}\n"
        "- {entrypoint: [c], workdir: mnist, project: other}\n- {entrypoint: [d]}\n"
    )
    done = run("submit", "--file", str(file))
    assert done.exit_code == 0, done.stderr
    [given] = creates.variables("CreateAll")
    digests = [each.get("package", {}).get("digest") for each in given["input"]["simulations"]]
    assert digests[0] == digests[1] == digests[2]
    assert digests[3] is None
    assert sorted(str(project) for _, project in creates.packages) == ["None", "other"]
    assert creates.package_requests == ["HEAD", "PUT"] * 2


def test_a_directory_here_and_one_there_exclude_each_other(run: Run, creates: Any, code: Path) -> None:
    done = run("submit", "--workdir", str(code), "-C", "/srv", "--", "x")
    assert done.exit_code == 2
    assert "give one of them" in done.stderr
    assert creates.package_requests == []


def test_what_can_not_be_packed_is_a_sentence_and_nothing_is_submitted(run: Run, creates: Any, code: Path) -> None:
    creates.most_package_bytes = 1_000
    (code / "model.pt").write_bytes(b"x" * 5_000)
    done = run("submit", "--workdir", str(code), "--", "x")
    assert done.exit_code == 2
    assert "model.pt" in done.stderr
    assert creates.variables("Create") == []


@pytest.mark.parametrize("refusals", [[(503, {"Retry-After": "0"})] * 2, [(429, {}), (409, {"Retry-After": "x"})]])
def test_a_server_that_is_busy_is_asked_again(
    run: Run, creates: Any, code: Path, monkeypatch: pytest.MonkeyPatch, refusals: list[Any]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(packages, "time", SimpleNamespace(sleep=pauses.append))
    creates.package_refusals = list(refusals)
    done = run("submit", "--workdir", str(code), "--", "x")
    assert done.exit_code == 0, done.stderr
    assert sent(creates) == ["train.py"]
    assert len(pauses) == 2


@pytest.mark.parametrize("status", [400, 403, 413, 507])
def test_a_refusal_is_a_sentence(run: Run, creates: Any, code: Path, status: int) -> None:
    creates.package_refusals = [(status, {})]
    done = run("submit", "--workdir", str(code), "--", "x")
    assert done.exit_code == 6
    assert "The package was not stored: Not now." in done.stderr
    assert creates.variables("Create") == []


def test_an_upload_whose_answer_was_lost_is_not_sent_again(
    run: Run, creates: Any, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "time", SimpleNamespace(sleep=lambda _: None))
    asked = iter([False, True])
    monkeypatch.setattr(packages, "_is_stored", lambda *_: next(asked))
    creates.package_refusals = [(503, {})]
    assert run("submit", "--workdir", str(code), "--", "x").exit_code == 0
    assert creates.package_requests == ["PUT"]


def test_a_server_of_an_older_version_takes_no_packages(run: Run, creates: Any, code: Path) -> None:
    creates.most_package_bytes = None
    done = run("submit", "--workdir", str(code), "--", "x")
    assert done.exit_code == 6
    assert "takes no packages" in done.stderr


def test_other_code_for_a_repetition_goes_to_the_project_of_the_old_one(
    run: Run, server: Any, simulation: Any, details: Any, code: Path
) -> None:
    server.answers["Details"] = lambda _: {"simulation": details(project={"id": "p", "name": "vision"})}
    server.answers["Fork"] = lambda _: {"forkSimulation": {"simulation": simulation(), "userErrors": []}}
    done = run("retry", "1", "--workdir", str(code))
    assert done.exit_code == 0, done.stderr
    [(digest, project)] = server.packages
    assert project == "vision"
    assert server.variables("Fork") == [{"input": {"id": "1", "package": {"digest": digest, "name": "mnist"}}}]


@pytest.mark.parametrize("given", ['{"pip": ["numpy"]}', "file"])
def test_a_runtime_environment_is_json_or_a_file(run: Run, creates: Any, tmp_path: Path, given: str) -> None:
    if given == "file":
        (tmp_path / "env.yaml").write_text("pip: [numpy]\n")
        given = str(tmp_path / "env.yaml")
    assert run("submit", "--runtime-env", given, "--", "x").exit_code == 0
    assert creates.variables("Create")[0]["input"]["runtimeEnv"] == {"pip": ["numpy"]}


@pytest.mark.parametrize("given", ["{", "nowhere.yaml", "[1]", '{"a": ' * 100_000])
def test_a_runtime_environment_that_is_none_is_a_usage_error(run: Run, creates: Any, given: str) -> None:
    assert run("submit", "--runtime-env", given, "--", "x").exit_code == 2
    assert creates.variables("Create") == []


# --- the way back ---


def packaged(server: Any, details: Any, tmp_path: Path, content: bytes, **more: Any) -> dict[str, Any]:
    url = "/files/x/package"
    server.files[url] = tmp_path / "stored"
    server.files[url].write_bytes(content)
    package = {
        "digest": sha256(content).hexdigest(), "sizeBytes": len(content), "name": "mnist", "commit": "a" * 40,
        "dirty": True, "url": url, **more,
    }  # fmt: skip
    server.answers["Details"] = lambda _: {"simulation": details(package=package)}
    return package


def test_a_package_is_shown_and_downloaded(run: Run, server: Any, details: Any, tmp_path: Path) -> None:
    package = packaged(server, details, tmp_path, b"archive")
    digest = package["digest"][:12]
    shown = run("show", "1")
    assert f"mnist, 7 bytes, {digest}, commit aaaaaaaaaaaa with changes" in " ".join(shown.stdout.split())
    assert json.loads(run("show", "1", "--json").stdout)["package"]["digest"] == package["digest"]
    done = run("files", "get", "1", "--kind", "package", "--to", str(tmp_path / "to"))
    assert done.exit_code == 0, done.stderr
    assert [(each.name, each.read_bytes()) for each in (tmp_path / "to").iterdir()] == [
        (f"mnist-{digest}.tar", b"archive")
    ]


@pytest.mark.parametrize("name", ["../up", "\x1b[31m", ".hidden", "a\\b", None])
def test_a_name_that_could_lead_elsewhere_names_no_file(
    run: Run, server: Any, details: Any, tmp_path: Path, name: str | None
) -> None:
    package = packaged(server, details, tmp_path, b"archive", name=name)
    done = run("files", "get", "1", "--kind", "package", "--to", str(tmp_path / "to"))
    assert done.exit_code == 0, done.stderr
    assert [each.name for each in (tmp_path / "to").iterdir()] == [f"package-{package['digest'][:12]}.tar"]


def test_other_bytes_and_other_addresses_are_refused(run: Run, server: Any, details: Any, tmp_path: Path) -> None:
    words = ("files", "get", "1", "--kind", "package", "--to", str(tmp_path / "to"))
    packaged(server, details, tmp_path, b"archive", digest="0" * 64)
    assert "did not arrive as it is stored" in run(*words).stderr
    assert list((tmp_path / "to").iterdir()) == []
    packaged(server, details, tmp_path, b"archive", url="@evil.example/files/x")
    assert "none of its own" in run(*words).stderr
    package = Package.model_validate(packaged(server, details, tmp_path, b"x", url="//evil.example/files/"))
    with pytest.raises(ServerRefused):
        packages.download(Server("http://service"), package, tmp_path)


def test_a_simulation_without_a_package_has_none(run: Run, server: Any, details: Any) -> None:
    server.answers["Details"] = lambda _: {"simulation": details()}
    refused = run("files", "get", "1", "--kind", "package")
    assert (refused.exit_code, "has no package" in refused.stderr) == (6, True)
    assert run("files", "get", "1", "x", "--kind", "package").exit_code == 2
