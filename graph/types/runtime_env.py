"""Ray's runtime environment as users may give it: what is handed through, and what is refused.

All users of a cluster can read the runtime environments of its jobs. So `env_vars` goes with the simulation's own
environment, which only its supervisor is sent, and a URL with a password is refused. `working_dir` and `py_modules` are
refused: code comes as a package, not from addresses that Ray's agents would fetch. So is what replaces the interpreter
or the container, in which the supervisor itself runs. Ray judges the rest. Raises ValueError with a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from graph.types.variables import check_name

MAX_BYTES = 16_384
MOST_VARIABLES = 1_000
ENGINE_LABEL = "simulations/engine"  # of the machines of a cluster; the same in runner/base.py
RAY = "ray"
HANDED_THROUGH = ("pip", "uv", "conda", "config")
VARIABLES = "env_vars"
INSTEAD = {
    "working_dir": "send the directory as a package (--workdir)",
    "py_modules": "send the modules with the package (--workdir)",
    "excludes": "list them in .simulationsignore",
    "py_executable": "the supervisor runs by it too; name the interpreter in the entrypoint",
    "image_uri": "the supervisor would run in that container; start the cluster's nodes in it",
    "container": "the supervisor would run in that container; start the cluster's nodes in it",
}
PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]*@", re.IGNORECASE)


def check_runtime_env(given: dict[str, Any]) -> dict[str, Any]:
    """The runtime environment, if it may be handed through."""
    for name in given:
        if name not in (*HANDED_THROUGH, VARIABLES):
            known = ", ".join((*HANDED_THROUGH, VARIABLES))
            advice = INSTEAD.get(name, f"it has {known}")
            raise ValueError(f"{ascii(name)[1:-1][:40]} can't be given: {advice}")
    for name in ("pip", "uv"):
        if name in given and not (_is_texts(given[name]) or isinstance(given[name], dict)):
            raise ValueError(f"{name} is a list of requirements, or an object with `packages`")
    if "conda" in given and not isinstance(given["conda"], str | dict):
        raise ValueError("conda is the name of an environment on the nodes, or an object as environment.yml has it")
    if "config" in given and not isinstance(given["config"], dict):
        raise ValueError("config is an object")
    variables = given.get(VARIABLES, {})
    if not isinstance(variables, dict) or not all(isinstance(each, str) for each in variables.values()):
        raise ValueError("env_vars is an object of strings")
    if len(variables) > MOST_VARIABLES:
        raise ValueError(f"env_vars has more than {MOST_VARIABLES:,} variables")
    for name in variables:
        check_name(name)
    if len(orjson.dumps(given)) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES:,} bytes as JSON")
    if any(PASSWORD.search(each) for name in HANDED_THROUGH for each in _texts(given.get(name))):
        raise ValueError("has a URL with a password, which all users of the cluster could read")
    return given


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Take it apart: what Ray is given, and the variables of the simulation."""
    handed = {name: value for name, value in given.items() if name != VARIABLES}
    return handed, dict(given.get(VARIABLES, {}))


def _is_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


def _texts(given: object) -> Iterator[str]:
    """All texts in a JSON value, keys included; its depth is bounded already."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for each in given:
            yield from _texts(each)
    elif isinstance(given, dict):
        for name, value in given.items():
            yield name
            yield from _texts(value)
