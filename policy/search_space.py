"""Search space of a sweep: parameters with a range or with choices, checked, as a document, as a grid, as a command.

Ranges and choices mean what they mean in Optuna (`FloatDistribution`, `IntDistribution`, `CategoricalDistribution`).
Values of a range with a step are computed in decimals: the third of 0.1, 0.2, ... is 0.3.

`{lr}` in a word of a command stands for the value of the parameter `lr`; `{{lr}}` is the text `{lr}`. Any other brace
is text, so that JSON and programs stay as they are, and so is `${lr}`: a shell's variable. No shell is involved: a word
stays one word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeAlias

MOST_PARAMETERS = 100
MOST_CHOICES = 1_000  # of one parameter
MOST_TRIALS = 10_000  # of one sweep: each next one is asked for with all others at hand
MOST_AT_ONCE = 1_000  # simulations of one sweep: trials at once, each with its seeds
LARGEST_INTEGER = 2**53  # of a range: samplers compute in doubles, which skip integers beyond

Value: TypeAlias = str | int | float | bool


class Sampler(StrEnum):
    """What chooses the parameters of the next trial: samplers of Optuna."""

    TPE = "TPE"
    RANDOM = "RANDOM"
    GRID = "GRID"
    QUASI_RANDOM = "QUASI_RANDOM"
    CMA_ES = "CMA_ES"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: either `choices`, or the range from `low` to `high`, both included."""

    name: str
    choices: tuple[Value, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    integer: bool = False

    @property
    def values(self) -> Sequence[Value] | None:
        """All of its values, in order; None for a continuous range, and for one that is searched by log."""
        if self.choices is not None:
            return self.choices
        return None if self.log else self.steps

    @property
    def steps(self) -> Sequence[Value] | None:
        """The values of a range with a step, or of integers, in order; None for a continuous one."""
        if self.low is None or self.high is None or (self.step is None and not self.integer):
            return None
        low, step = _decimal(self.low), _decimal(1 if self.step is None else self.step)
        return _Steps(low, step, int((_decimal(self.high) - low) // step) + 1, self.integer)


Space: TypeAlias = Sequence[Parameter]


@dataclass(frozen=True, slots=True)
class _Steps(Sequence[Value]):
    """Values of a range with a step, computed one by one: there may be 2^53."""

    low: Decimal
    step: Decimal
    total: int
    integer: bool

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < self.total:
            raise IndexError(place)
        value = self.low + place * self.step
        return int(value) if self.integer else float(value)


# --- what may be asked for -------------------------------------------------------------------------------------


def mistakes(space: Space, sampler: Sampler) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Find what is wrong with a search space: where, and a sentence."""
    if not space:
        yield (), "give at least one parameter"
    if len(space) > MOST_PARAMETERS:
        yield (), f"at most {MOST_PARAMETERS} parameters, and these are {len(space):,}"
        return
    seen: set[str] = set()
    is_sound = True
    for place, parameter in enumerate(space):
        if parameter.name in seen:
            yield (place, "name"), f"{_shown(parameter.name)} is given twice"
        seen.add(parameter.name)
        for field, sentence in (*_mistakes_of(parameter), *_unsuited(parameter, sampler)):
            is_sound = False
            yield (place, *([field] if field else [])), sentence
    if is_sound and sampler is Sampler.GRID and (size := grid_size(space)) > MOST_TRIALS:
        yield (), f"the grid has {size:,} trials: at most {MOST_TRIALS:,}"


def _mistakes_of(parameter: Parameter) -> Iterator[tuple[str | None, str]]:
    if parameter.choices is not None:
        yield from _mistakes_of_choices(parameter)
    elif parameter.low is None or parameter.high is None:
        yield None, "give choices, or low and high"
    else:
        yield from _mistakes_of_range(parameter, parameter.low, parameter.high)


def _mistakes_of_choices(parameter: Parameter) -> Iterator[tuple[str | None, str]]:
    choices = parameter.choices or ()
    if parameter.low is not None or parameter.high is not None or parameter.step is not None:
        yield None, "give either choices, or low and high"
    if parameter.log or parameter.integer:
        yield None, "log and integer are for ranges, not for choices"
    if not choices:
        yield "choices", "give at least one choice"
    if len(choices) > MOST_CHOICES:
        yield "choices", f"at most {MOST_CHOICES:,} choices, and these are {len(choices):,}"
    for choice in choices:
        if isinstance(choice, float) and not math.isfinite(choice):
            yield "choices", "a choice must be a finite number"
            return
        if isinstance(choice, int) and not -(2**63) <= choice < 2**63:
            yield "choices", "a whole number must have at most 64 bits: give larger ones as text"
            return
    if len({_label(each) for each in choices}) < len(choices):
        yield "choices", "a choice is given twice"


def _mistakes_of_range(parameter: Parameter, low: float, high: float) -> Iterator[tuple[str | None, str]]:
    step = parameter.step
    if not all(map(math.isfinite, (low, high, step or 0))):
        yield None, "low, high and step must be finite numbers"
        return
    if low >= high:
        yield "low", f"low must be below high, and {low:g} is not below {high:g}"
        return
    if not math.isfinite(high - low):
        yield "high", "the range is too wide for a double"
        return
    if parameter.log and low <= 0:
        yield "low", f"low must be above 0 for a range that is searched by log, and it is {low:g}"
    if step is not None and step <= 0:
        yield "step", "step must be above 0"
        return
    if step is not None and step > high - low:
        yield "step", "step must not be larger than the range"
    if parameter.integer:
        for name, value in (("low", low), ("high", high), ("step", step or 0)):
            if value != int(value):
                yield name, f"{name} must be a whole number for a range of integers"
            elif abs(value) > LARGEST_INTEGER:
                yield name, f"{name} must lie within ±2^53 for a range of integers: give such numbers as choices"
    elif step is not None and (high - low) / step > LARGEST_INTEGER:
        yield "step", "the range has more than 2^53 steps"


def _unsuited(parameter: Parameter, sampler: Sampler) -> Iterator[tuple[str | None, str]]:
    if sampler is Sampler.CMA_ES and parameter.choices is not None:
        yield "choices", "CMA_ES searches ranges of numbers only: take TPE, or give low and high"
    if sampler is Sampler.GRID and parameter.choices is None and not (parameter.integer and not parameter.log):
        if parameter.log:
            yield "log", "a grid has no log: give its values as choices"
        elif parameter.step is None:
            yield "step", "a range without a step has infinitely many values: give step or choices for a GRID"


def grid_size(space: Space) -> int:
    """Return how many trials the grid of a sound space has."""
    return math.prod(len(parameter.values or ()) for parameter in space)


# --- as a document ---------------------------------------------------------------------------------------------


def encode(space: Space) -> list[dict[str, Any]]:
    """Write a space as JSON values, as the row of a sweep keeps it."""
    return [
        {each.name: _plain(value) for each in fields(Parameter) if (value := getattr(one, each.name)) != each.default}
        for one in space
    ]


def decode(document: Sequence[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """Read a space."""
    return tuple(
        Parameter(**{**each, **({"choices": tuple(each["choices"])} if "choices" in each else {})}) for each in document
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# --- in a command ----------------------------------------------------------------------------------------------

_MARK = re.compile(r"(?<!\$)(?<!\$\{)(?:\{\{([^\W\d][\w./-]*)\}\}|\{([^\W\d][\w./-]*)\})")
MOST_BYTES = 65_536  # of all words of a command; Linux takes 131,072 in one


def marks(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """List the parameters that a command refers to, each with the place of its word."""
    for place, word in enumerate(command):
        yield from ((place, match[2]) for match in _MARK.finditer(word) if match[2] is not None)


def is_program(word: str) -> bool:
    """Whether a word has blanks, as a program for `python -c` has: there a name in braces may be meant as such."""
    return any(character.isspace() for character in word)


def fill(command: Sequence[str], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Put the values of parameters into a command. Raises KeyError for a name that is none of them."""

    def text(match: re.Match[str]) -> str:
        return f"{{{match[1]}}}" if match[2] is None else as_text(parameters[match[2]])

    return tuple(_MARK.sub(text, word) for word in command)


def size_of_filled(command: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Return how many bytes a command has at most once it is filled. sizes: of the values; other names stay."""
    added = sum(sizes[name] - len(name.encode()) - 2 for _, name in marks(command) if name in sizes)
    return sum(len(word.encode()) for word in command) + added


def longest(parameter: Parameter) -> int:
    """Return how many bytes a value of a parameter has at most, in a command."""
    if parameter.choices is None:
        return 25  # "-2.2250738585072014e-308" has 24
    return max((len(as_text(each).encode()) for each in parameter.choices), default=0)


def as_text(value: object) -> str:
    """Write a value into a command: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _label(value: Value) -> str:
    """Return a text that tells 1, 1.0, true and "1" apart."""
    return json.dumps(value)


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}…")
