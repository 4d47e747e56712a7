"""`submit --file`: submission files in YAML. All mistakes are reported at once, with line and nearest valid key.

The keys are those of the options, with `_` for `-`. Parsed by the core schema of YAML 1.2: only `true` and `false` are
booleans, a date is text, and so is 12:30; 1e-3 is a number. Aliases are expanded up to a bound, so that a small file
can't grow without limit. Tags that turn a list or a mapping into another type are mistakes.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    ValidationError,
    field_serializer,
)
from pydantic.alias_generators import to_camel

from cli.arguments import Condition, MetricsFrom, Mode, Retryable, fits_64_bits, parse_after, parse_duration
from cli.errors import UsageError
from cli.terminal import clean

MOST_BYTES = 1_000_000
MOST_NODES = 100_000
DEEPEST = 50
MOST_TOLD = 20

QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
BYTES = {
    "": 2**30, "b": 1, "kb": 10**3, "k": 2**10, "ki": 2**10, "kib": 2**10, "mb": 10**6, "m": 2**20, "mi": 2**20,
    "mib": 2**20, "gb": 10**9, "g": 2**30, "gi": 2**30, "gib": 2**30, "tb": 10**12, "t": 2**40, "ti": 2**40,
    "tib": 2**40,
}  # fmt: skip

TAGS = "tag:yaml.org,2002:"  # written !!

Place: TypeAlias = tuple[str | int, ...]


class Mistake(ValueError):
    """Invalid value; the message names what was expected."""


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Mistake("expected a duration like 90s, 15m, 1h30m or 2d")
    try:
        return math.ceil(parse_duration(str(value)).total_seconds())
    except UsageError as error:
        raise Mistake(str(error)) from None


def _interval(value: object) -> int:
    return 0 if str(value).strip().lower() in ("0", "0.0", "0s") else _seconds(value)  # 0: none


def _number(value: object) -> object:
    match = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        raise Mistake(f"expected a number without a unit or quotes, {match[1]}, got {value!r}")
    return value


def _gib(value: object) -> object:
    match = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[2].lower() in BYTES:
        gib = float(match[1]) * BYTES[match[2].lower()] / 2**30
        raise Mistake(f"expected a number of GiB, {gib:.4g}, got {value!r}")
    return value


def _price(value: object) -> str:
    return _money(value, "a price per hour like 2.50")


def _amount(value: object) -> str:
    return _money(value, "an amount like 12.50")


def _money(value: object, expected: str) -> str:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            price = Decimal(str(value))
        except InvalidOperation:
            price = Decimal("NaN")
        if price.is_finite() and price >= 0:
            return str(value)
    raise Mistake(f"expected {expected}, without a currency, got {_as_yaml(value)}")


def argv(value: object) -> object:
    """Refuse a command that is one text. Raises `Mistake`, with the words as a list."""
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value]
        raise Mistake(f"expected a list of words, for no shell reads it: {json.dumps(words, ensure_ascii=False)}")
    return value


def _word(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


From = Annotated[MetricsFrom, BeforeValidator(_word)]
Duration = Annotated[int, BeforeValidator(_seconds)]
Interval = Annotated[int, BeforeValidator(_interval)]
Number = Annotated[float, BeforeValidator(_number)]
Gib = Annotated[float, BeforeValidator(_gib)]
Count = Annotated[int, BeforeValidator(_number)]
Price = Annotated[str, BeforeValidator(_price)]
Amount = Annotated[str, BeforeValidator(_amount)]
Argv = Annotated[list[str], BeforeValidator(argv)]


class Section(BaseModel):
    """Base of the mappings in the file: only known keys, strict types."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=AliasGenerator(serialization_alias=to_camel)
    )


class Resources(Section):
    cpus: Number | None = None
    memory_gib: Gib | None = None
    gpus: Count | None = None
    gpu_model: str | None = None
    labels: dict[str, str] | None = None
    machine: str | None = None
    max_price_per_hour: Price | None = None


class Limits(Section):
    max_runtime_seconds: Duration | None = None
    max_cost: Amount | None = None
    max_steps: Count | None = None
    max_retries: Count | None = None
    retry_on: list[Retryable] | None = None


class Objective(Section):
    metric: str
    mode: Mode | None = None


class StopRule(Section):
    metric: str | None = None
    mode: Mode | None = None
    min_delta: Number | None = None
    patience: Count | None = None
    grace_period: Count | None = None
    stopping_threshold: Number | None = None
    divergence_threshold: Number | None = None
    check_finite: bool | None = None
    smoothing: Number | None = None
    plateau: bool | None = None
    rising: bool | None = None
    aggressive: bool | None = None
    dry_run: bool | None = None


def _after(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_after(value)
    except UsageError as error:
        raise Mistake(str(error).removeprefix("--after: ")) from None


class After(Section):
    simulation: str | None = None
    client_key: str | None = None
    index: Count | None = None
    condition: Annotated[Condition, BeforeValidator(_word)] | None = None


class SubmissionFile(Section):
    """A submission file, or one of the simulations in it."""

    name: str | None = None
    project: str | None = None
    entrypoint: Argv | None = None
    parameters: dict[str, JsonValue] | None = None
    environment: dict[str, str] | None = None
    working_directory: str | None = None
    workdir: str | None = None
    runtime_env: dict[str, JsonValue] | None = None
    tags: list[str] | None = None
    notes: str | None = None
    after: list[Annotated[After, BeforeValidator(_after)]] | None = None
    resources: Resources | None = None
    machines: Count | None = None
    limits: Limits | None = None
    metrics: dict[str, Mode] | None = None
    metrics_from: From | None = None
    metrics_patterns: list[str] | None = None
    objective: Objective | None = None
    stopping: list[StopRule] | None = None
    tensorboard: list[str] | None = None
    alerts: list[str] | None = None
    system_metrics_seconds: Interval | None = None
    priority: Count | None = None
    attended: bool | None = None
    attended_grace_seconds: Duration | None = None
    preemptible: bool | None = None
    client_key: str | None = None

    @field_serializer("metrics")
    def _as_list(self, metrics: dict[str, str] | None) -> list[dict[str, str]] | None:
        return [{"name": name, "mode": mode} for name, mode in metrics.items()] if metrics is not None else None


# A duration has its unit in the value in the file, and in the name in the API.
WRITTEN = {
    "max_runtime": "max_runtime_seconds",
    "attended_grace": "attended_grace_seconds",
    "system_metrics": "system_metrics_seconds",
}
NAMES = {name: written for written, name in WRITTEN.items()}


def read_submissions(path: str) -> dict[str, object] | list[dict[str, object]]:
    """Read a submission file as a CreateSimulationInput, except the machine, which stays a name. `-`: standard input.

    A list, and several documents, are several simulations. A relative working directory is relative to the file.
    Raises `UsageError`: a line for each mistake.
    """
    name, roots = _composed(path)
    tree = Tree(name)
    if len(roots) == 1 and isinstance(roots[0], yaml.SequenceNode):
        given = tree.value(roots[0], (), 0)
    elif len(roots) > 1:
        given = [tree.value(each, (number,), 0) for number, each in enumerate(roots)]
    else:
        given = tree.value(roots[0], (), 0) if roots else {}
    every = given if isinstance(given, list) else [given]
    problems = list(tree.problems)
    found = []
    for number, each in enumerate(every):
        path_of_it: Place = (number,) if isinstance(given, list) else ()
        if not isinstance(each, dict):
            line = tree.line(path_of_it)
            problems.append((line, f"{name}:{line}: expected a mapping like `entrypoint: [python, train.py]`"))
            continue
        try:
            found.append(SubmissionFile.model_validate(_renamed(each)))
        except ValidationError as error:
            problems += [
                _problem(tree, {**mistake, "loc": (*path_of_it, *mistake["loc"])}) for mistake in error.errors()
            ]
    if given == []:
        problems.append((1, f"{name}:1: expected at least one simulation"))
    if problems:
        told = [sentence for _, sentence in sorted(problems)]
        more = [f"... and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
        raise UsageError("\n".join(told[:MOST_TOLD] + more))
    wanted = [_wanted(each, path) for each in found]
    return wanted if isinstance(given, list) else wanted[0]


def read_tree(path: str) -> tuple[Tree, Any]:
    """Read a file of one document: its values, with their lines. Raises `UsageError`."""
    name, roots = _composed(path)
    if len(roots) > 1:
        raise UsageError(f"{name}: expected one document, and this has {len(roots):,}")
    tree = Tree(name)
    return tree, tree.value(roots[0], (), 0) if roots else None


def read_runtime_env(given: str) -> dict[str, Any]:
    """Read a runtime environment of Ray: JSON, or else a YAML file. Raises `UsageError`."""
    if given.lstrip().startswith("{"):
        try:
            found = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--runtime-env: this is not JSON: {clean(str(error))}") from None
    else:
        tree, found = read_tree(given)
        if tree.problems:
            raise UsageError("\n".join(sentence for _, sentence in sorted(tree.problems)[:MOST_TOLD]))
    if not isinstance(found, dict):
        raise UsageError("--runtime-env: expected a mapping like {pip: [numpy]}")
    return found


def completed_submission(given: Mapping[str, Any], tree: Tree, path: str, *, within: Place = ()) -> dict[str, object]:
    """Check a submission that is a part of a file. within: its place there. Raises `UsageError`: a line per mistake."""
    try:
        return _wanted(SubmissionFile.model_validate(_renamed(given)), path)
    except ValidationError as error:
        told = [_problem(tree, {**each, "loc": (*within, *each["loc"])})[1] for each in error.errors()]
        raise UsageError("\n".join(told[:MOST_TOLD])) from None


def _composed(path: str) -> tuple[str, list[yaml.Node]]:
    """Return the file's display name, and its documents."""
    name, text = _read(path)
    try:
        return name, [each for each in yaml.compose_all(text, Loader=_Loader) if not _is_empty(each)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{name}:{line}: this is not YAML: {error.problem or 'it makes no sense'}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{name}: this is not YAML: {clean(str(error))}") from None


def _is_empty(root: yaml.Node | None) -> bool:
    """Whether a document is nothing at all, as behind the last `---`."""
    return root is None or (isinstance(root, yaml.ScalarNode) and root.value == "")


def _wanted(submission: SubmissionFile, path: str) -> dict[str, object]:
    wanted: dict[str, object] = submission.model_dump(by_alias=True, exclude_none=True)
    base = Path.cwd() if path == "-" else Path(path).absolute().parent
    for name in ("workingDirectory", "workdir"):
        directory = wanted.get(name)
        if isinstance(directory, str):
            wanted[name] = str((base / Path(directory).expanduser()).resolve())
    return wanted


class _Loader(yaml.SafeLoader):
    """Loader for the core schema of YAML 1.2 (section 10.3.2); the library's own loader reads YAML 1.1."""

    def integer(self, node: yaml.ScalarNode) -> int:
        """Parse a whole number: 010 is ten."""
        text = str(node.value)
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)


CORE_SCHEMA = {  # pattern and first characters of each type
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_Loader.yaml_implicit_resolvers = {}
for kind, (pattern, first) in CORE_SCHEMA.items():
    _Loader.add_implicit_resolver(f"{TAGS}{kind}", re.compile(f"(?:{pattern})$"), first)
_Loader.add_constructor(f"{TAGS}int", _Loader.integer)


class Tree:
    """Values of the file, with their lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[tuple[int, str]] = []
        self._lines: dict[Place, int] = {}
        self._nodes = 0
        self._loader = _Loader("")

    def line(self, path: Place) -> int:
        """Return the line of a path, or of its nearest parent."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def known(self, path: Place) -> Place:
        """Return the parts of pydantic's path that are in the file: pydantic adds types."""
        found: Place = ()
        for part in path:
            if (*found, part) in self._lines:
                found = (*found, part)
        return found

    def value(self, node: yaml.Node, path: Place, depth: int) -> Any:
        """Construct the value of a node."""
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > DEEPEST:
            raise UsageError(
                f"{self.name}:{node.start_mark.line + 1}: this grows too large or too deep for a submission file"
            )
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in (f"{TAGS}map", f"{TAGS}seq"):
            self._tell(node, path, f"expected a list or a mapping, got {node.tag.replace(TAGS, '!!')}")
            return None
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path, depth)
            case yaml.SequenceNode():
                return [self.value(each, (*path, number), depth + 1) for number, each in enumerate(node.value)]
        try:
            made = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._tell(node, path, f"this value can't be read: {clean(str(getattr(error, 'problem', error)))}")
            return None
        if isinstance(made, float) and not math.isfinite(made):
            self._tell(node, path, f"expected a number that JSON knows, got {node.value}; as text, quote it")
            return None
        if isinstance(made, int) and not fits_64_bits(made):
            self._tell(node, path, f"{node.value} is a whole number beyond 64 bits; as text, quote it")
            return None
        return made

    def _mapping(self, node: yaml.MappingNode, path: Place, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._tell(key, path, "expected a key before the colon")
                continue
            name = str(key.value)
            if name in made:
                self._tell(key, path, f"{name} is given twice, first in line {self.line((*path, name))}")
                continue
            self._lines[(*path, name)] = key.start_mark.line + 1
            made[name] = self.value(value, (*path, name), depth + 1)
        return made

    def _tell(self, node: yaml.Node, path: Place, sentence: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append((line, say(self.name, line, path, sentence)))


def say(name: str, line: int, path: Place, sentence: str) -> str:
    """Format a mistake with its file, line and path."""
    where = ".".join(map(str, path))
    return clean(f"{name}:{line}: {f'{where}: ' if where else ''}{sentence}", limit=1_000)


def _read(path: str) -> tuple[str, str]:
    """Return the file's display name and its text. Raises `UsageError`."""
    try:
        if path == "-":
            name, raw = "standard input", sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            name = path
            with Path(path).open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--file: {clean(path)} can't be read: {error.strerror or error}") from None
    if len(raw) > MOST_BYTES:
        raise UsageError(f"--file: {clean(name)} is too large for a submission file: at most {MOST_BYTES:,} bytes")
    try:
        return clean(name), raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--file: {clean(name)} is no text in UTF-8") from None


def _renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the file's keys for durations to the API's; the API's own keys are unknown in the file."""
    made: dict[str, Any] = {}
    for key, value in given.items():
        if key in NAMES:
            key = f"{key}?"  # reported as unknown
        inner = _renamed(value) if key == "limits" and isinstance(value, dict) else value
        made[WRITTEN.get(key, key)] = inner
    return made


# --- mistakes --------------------------------------------------------------------------------------------------

PLACES = {
    NAMES.get(field, field): prefix
    for prefix, section in (
        ("after.", After),
        ("", SubmissionFile),
        ("resources.", Resources),
        ("limits.", Limits),
        ("objective.", Objective),
        ("stopping.", StopRule),
    )
    for field in section.model_fields
}
SECTIONS: Mapping[Place, type[Section]] = {
    (): SubmissionFile, ("resources",): Resources, ("limits",): Limits, ("objective",): Objective,
    ("stopping",): StopRule, ("after",): After,
}  # fmt: skip
OTHER_WORDS = {
    "command": "entrypoint", "cmd": "entrypoint", "args": "entrypoint", "run": "entrypoint", "env": "environment",
    "envs": "environment", "params": "parameters", "working_dir": "workdir", "cwd": "working_directory",
    "code": "workdir",
    "memory": "memory_gib", "mem": "memory_gib", "ram": "memory_gib", "cpu": "cpus", "gpu": "gpus",
    "accelerator": "gpu_model", "retries": "max_retries", "timeout": "max_runtime", "time_limit": "max_runtime",
    "requirements": "resources", "price": "max_price_per_hour", "stop": "stopping", "early_stopping": "stopping",
    "target": "stopping_threshold", "cost": "max_cost", "budget": "max_cost", "steps": "max_steps",
    "alert": "alerts", "notify": "alerts", "notifications": "alerts", "note": "notes", "depends_on": "after",
    "needs": "after", "dependencies": "after",
}  # fmt: skip


def _problem(tree: Tree, problem: dict[str, Any]) -> tuple[int, str]:
    # pydantic appends the member of a union, and a key, to the path.
    location = tuple(NAMES.get(str(part), part) for part in problem["loc"])
    path: Place = tuple(part[:-1] if isinstance(part, str) and part.endswith("?") else part for part in location)
    if problem["type"] == "extra_forbidden":
        return tree.line(path), say(tree.name, tree.line(path), path, _unknown(path))
    if path and path[-1] == "[key]":
        path = path[:-1]
    sentence = EXPECTED.get(problem["type"], "")
    if problem["type"] == "value_error":
        sentence = str(problem["ctx"]["error"])
    elif problem["type"] == "literal_error":
        sentence = f"expected {problem['ctx']['expected']}, got {_as_yaml(problem['input'])}"
        right = _nearest(str(problem["input"]).upper(), re.findall(r"'(\w+)'", problem["ctx"]["expected"]))
        sentence += f"; did you mean {right}?" if right else ""
    elif sentence:
        got = _as_yaml(problem["input"])
        sentence = f"expected {sentence}, got {got}"
        if problem["type"] == "string_type" and not isinstance(problem["input"], dict | list | None):
            sentence += f': quote it, "{got}"'
    else:
        sentence = clean(str(problem["msg"]))
    path = tree.known(path)
    return tree.line(path), say(tree.name, tree.line(path), path, sentence)


EXPECTED = {
    "string_type": "text", "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "dict_type": "a mapping", "model_type": "a mapping",
    "list_type": "a list", "finite_number": "a finite number",
}  # fmt: skip


def _unknown(path: Place) -> str:
    """Report an unknown key, with the likely one."""
    word = re.sub(r"([a-z])([A-Z])", r"\1_\2", str(path[-1])).lower().replace("-", "_")
    section = tuple(part for part in path[:-1] if not isinstance(part, int))
    here = [NAMES.get(field, field) for field in SECTIONS.get(section, SubmissionFile).model_fields]
    prefix = "".join(f"{part}." for part in path[:-1])
    meant = OTHER_WORDS.get(word, word).removesuffix("_seconds")
    right = meant if meant in here else None
    if right is None and meant in PLACES:
        return f"unknown key here; it is {PLACES[meant]}{meant}"
    right = right or _nearest(meant, here)
    if right is not None:
        return f"unknown key; did you mean {right}?"
    elsewhere = _nearest(meant, list(PLACES))
    if elsewhere is not None:
        return f"unknown key; did you mean {PLACES[elsewhere]}{elsewhere}?"
    return f"unknown key; {prefix.rstrip('.') or 'a submission file'} has {', '.join(here)}"


def _nearest(word: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _as_yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else clean(str(value), limit=100)
