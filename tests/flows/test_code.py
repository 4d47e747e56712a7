"""Code that travels: a repository is packed, runs where the service runs it, and goes on after kill -9."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from live import Service, eventually, kill, number_of

SHOWN = """
query ($id: ID!) {
  simulation(id: $id) {
    state reasonDetail attempts { number } package { digest name commit dirty url }
    log: logs { nodes { text } }
  }
}
"""

# Prints what there is; with "waits" it goes on once the file that a parameter names is there.
TRAIN = """
import json, os, pathlib, time
from lib.model import LOSS
here = sorted(str(path) for path in pathlib.Path().rglob("*") if path.is_file() and "__pycache__" not in str(path))
print(json.dumps({"step": int(os.environ["SIMULATION_ATTEMPT"]), "loss": LOSS, "files": len(here)}), flush=True)
print("here", here, os.environ["SIMULATION_WORKDIR"] == os.getcwd(), flush=True)
gate = json.loads(os.environ["SIMULATION_PARAMETERS"]).get("gate")
while gate and not os.path.exists(gate):
    time.sleep(0.02)
pathlib.Path("result").write_text("done")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A repository with a file that git ignores, and one that is not committed yet."""
    directory = tmp_path / "mnist"
    (directory / "lib").mkdir(parents=True)
    (directory / "train.py").write_text(TRAIN)
    (directory / ".gitignore").write_text("data.bin\n")
    (directory / "data.bin").write_bytes(b"x" * 1_000)
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "one")):
        subprocess.run(["git", *words], cwd=directory, check=True, env={**os.environ, **identity})
    (directory / "lib" / "model.py").write_text("LOSS = 0.25\n")
    return directory


async def shown(service: Service, simulation: str) -> Any:
    return (await service.execute(SHOWN, id=simulation))["simulation"]


async def test_a_repository_is_sent_once_runs_there_and_goes_on_after_a_kill(
    brisk: Service, code: Path, tmp_path: Path
) -> None:
    words = ("submit", "--workdir", str(code), "--cpus", "0.1")
    gate = tmp_path / "gate"
    first, said = await brisk.cli(*words, "-p", f"gate={gate}", "--", "python", "train.py")
    assert "Packed 3 files" in said
    assert "with changes): uploaded." in said

    async def reports(attempt: int) -> bool:
        return attempt in [each for each, *_ in await brisk.log_of(first, "loss")]

    await eventually(lambda: reports(1), "it runs")
    kill(*brisk.recorded("supervisor"))
    await eventually(lambda: reports(2), "it is retried, in the same package")
    second, said = await brisk.cli(*words, "--", "python", "train.py")
    assert "with changes): stored already." in said
    assert [row[0] for row in await brisk.fetch("SELECT count(*) FROM packages")] == [1]
    gate.touch()
    for simulation in (first, second):
        end = await brisk.finished(simulation)
        assert end["state"] == "FINISHED", end
        found = await shown(brisk, simulation)
        text = "\n".join(chunk["text"] for chunk in found["log"]["nodes"])
        assert "here ['.gitignore', 'lib/model.py', 'train.py'] True" in text
        assert found["package"]["name"] == "mnist"
        assert found["package"]["dirty"] is True
    kept = brisk.data_directory / "work"
    await eventually(lambda: len(list(kept.rglob("result"))) == 2, "what they wrote is kept")
    for result in kept.rglob("result"):
        assert not (result.parent / "train.py").exists(), "and not what they were sent"
    await downloaded(brisk, first, tmp_path / "down")


async def downloaded(service: Service, simulation: str, to: Path) -> None:
    digest = (await shown(service, simulation))["package"]["digest"]
    _, said = await service.cli("files", "get", simulation, "--kind", "package", "--to", str(to))
    [archive] = to.iterdir()
    assert archive.name == f"mnist-{digest[:12]}.tar"
    listed = subprocess.run(["tar", "-tf", archive], check=True, capture_output=True, text=True).stdout.split()
    assert listed == [".gitignore", "lib/model.py", "train.py"]
    assert str(archive) in said


async def test_other_code_and_other_parameters_for_the_same_simulation(brisk: Service, code: Path) -> None:
    old, _ = await brisk.cli("submit", "--workdir", str(code), "--cpus", "0.1", "--", "python", "train.py")
    assert (await brisk.finished(old))["state"] == "FINISHED"
    (code / "lib" / "model.py").write_text("LOSS = 0.125\n")
    new, _ = await brisk.cli("retry", old, "--workdir", str(code))
    assert (await brisk.finished(new))["state"] == "FINISHED"
    assert [value for *_, value in await brisk.log_of(new, "loss")] == [0.125]
    again, _ = await brisk.cli("retry", new)
    assert (await brisk.finished(again))["state"] == "FINISHED"
    assert [value for *_, value in await brisk.log_of(again, "loss")] == [0.125]
    digests = [(await shown(brisk, each))["package"]["digest"] for each in (old, new, again)]
    assert digests[0] != digests[1] == digests[2]
    assert number_of(again) > number_of(new)
