"""Environment variables of a simulation: which names users may choose, and the one that each parameter is given.

The service sets `SIMULATION_*` and `CUDA_VISIBLE_DEVICES` itself. Raises ValueError with a sentence for the user.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import orjson

OWN_PREFIX = "SIMULATION_"
# Set to the GPUs that the simulation was assigned, so that it can't take those of others.
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
# Control, format (bidi and zero-width among them), surrogate, and the three kinds of separators (Unicode 4.5).
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
SHOWN = 40  # characters of a name in a message


def check_name(name: str) -> str:
    """The name, if a user may choose it."""
    if not name or "=" in name:
        raise ValueError("names of variables must not be empty or contain =")
    if any(unicodedata.category(character) in INVISIBLE for character in name):
        raise ValueError(
            f"{ascii(name)[:SHOWN]} has blank, control or invisible characters, which names of variables must not have"
        )
    if name.startswith(OWN_PREFIX):
        raise ValueError(f"names that begin with {OWN_PREFIX} are set by the service")
    if name == GPU_VARIABLE:
        raise ValueError(
            f"{GPU_VARIABLE} is set by the service to the GPUs of the simulation: ask for them by resources.gpus"
        )
    return name


def parameter_variables(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Plain parameters as variables of their own: learningRate 0.1 becomes SIMULATION_PARAMETER_LEARNINGRATE=0.1."""
    return {
        variable: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in parameters.items()
        if (variable := _variable_of(name, value)) is not None
    }


def check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters, if no two of them need the same variable."""
    names: dict[str, str] = {}
    for name, value in parameters.items():
        variable = _variable_of(name, value)
        if variable is None:
            continue
        if variable in names:
            raise ValueError(f"{names[variable]!r} and {name!r} would both be {variable}: rename one of them")
        names[variable] = name
    return parameters


def _variable_of(name: str, value: object) -> str | None:
    """Its variable; None for lists, objects, null, and names that no shell could refer to."""
    if not isinstance(value, str | int | float) or not name.isascii() or not name.replace("_", "a").isalnum():
        return None
    return f"{OWN_PREFIX}PARAMETER_{name.upper()}"
