"""Rules of the house that review would say twice, told by walking the syntax trees.

Who may import whom is kept by import-linter (pyproject.toml). Each rule here is first shown breaches that it must find:
a rule that finds nothing in clean code might as well be blind.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("graph", "scheduler", "transitions", "policy", "runner", "db", "cli")

# DESIGN.md, section 1; what a package manager, a reader or a container wants beside it.
REQUIRED = {
    *ROOMS, "client", "alembic", "tests", "benchmarks", "examples", "settings.py", "pyproject.toml", "Dockerfile",
    "docker-compose.yml", "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile",
    "requirements.lock",
}  # fmt: skip
ALLOWED = {"web", "docs", "requirements-*.lock"}
NEVER_COMMITTED = {"__pycache__", "node_modules", "dist", "*.egg-info"}

# Only settings.py reads the environment, except to pass it to a process that is started.
READS_ENVIRONMENT = {
    "settings.py": "every knob, once",
    "runner/supervisor/child.py": "travels without settings.py; hands an allow-list of its environment to the child",
    "runner/supervisor/launcher.py": "replaces its own environment by the one that the engine names for a supervisor",
    "runner/supervisor/job.py": "takes the launch and the GPUs that a cluster gives to a job",
    "runner/local.py": "hands an allow-list of its own environment to the supervisor that it starts",
    "cli/up.py": "hands its environment to the processes of the service that it starts",
    "cli/children.py": "hands its environment to the processes of the service that it starts",
}
# Modules of mirrored rooms without a test file of their name, and the file that tests them.
MIRRORED = ("policy", "transitions")
TESTED_ELSEWHERE = {
    "policy/matching.py": "tests/policy/test_room_properties.py",
    "policy/plan.py": "tests/policy/test_schedule.py",
    "policy/preemption.py": "tests/policy/test_schedule.py",
    "policy/queue_order.py": "tests/policy/test_schedule.py",
    "policy/reservation.py": "tests/policy/test_schedule.py",
    "policy/why.py": "tests/policy/test_waiting.py",
    "policy/workload.py": "tests/policy/test_schedule.py",
    "transitions/sweep.py": "tests/scheduler/test_sweeps.py",
}
LONGEST_POLL_SECONDS = 0.05
CPU_CLOCKS = ("process_time", "thread_time", "perf_counter")

TEXTS = ("*.py", "*.ts", "*.svelte", "*.md", "*.graphql", "*.html", "*.yml", "*.toml", "Makefile", "Dockerfile", "run")
# Indefinite pronouns: write the noun (client, subscriber, user, process). In two parts, so that this file has none.
INDEFINITE = re.compile("|".join(map("".join, [("who", "ever"), ("no", "body"), ("some", "body")])), re.IGNORECASE)

Rule = Callable[[ast.Module], Iterator[tuple[int, str]]]


def modules() -> list[Path]:
    return [*(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))), ROOT / "settings.py"]


def tables() -> list[Path]:
    return sorted((ROOT / "db" / "tables").glob("*.py"))


def own_tests() -> list[Path]:
    return [path for path in sorted((ROOT / "tests").rglob("*.py")) if "node_modules" not in path.parts]


def texts() -> Iterator[Path]:
    """Yield the files of code, documents, schema and messages; none that is installed or generated."""
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [
            name
            for name in inner
            if name == ".ci" or not any(fnmatch(name, pattern) for pattern in (".*", *NEVER_COMMITTED))
        ]
        yield from (Path(folder, name) for name in names if any(fnmatch(name, pattern) for pattern in TEXTS))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def breaches(rule: Rule, paths: list[Path]) -> list[str]:
    return [f"{name_of(path)}:{line}: {what}" for path in paths for line, what in found_in(path)[rule]]


@cache
def found_in(path: Path) -> dict[Rule, list[tuple[int, str]]]:
    """What each rule finds in a file, which is parsed once; the trees of all files would fill the memory."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    try:
        return {rule: list(rule(tree)) for rule in (OF_TESTS if ROOT / "tests" in path.parents else OF_ROOMS)}
    finally:
        nodes_of.cache_clear()


@cache
def nodes_of(tree: ast.Module) -> Sequence[ast.AST]:
    """All nodes of a tree, in the order of `ast.walk`: most rules look at each."""
    return list(ast.walk(tree))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of attributes; what is called or indexed in between is left out."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}"
        case ast.Call(func=inner):
            return dotted(inner)
        case _:
            return ""


def keys_of(node: ast.Dict) -> set[object]:
    """`a` of {"a": 1} and of {Simulation.a: 1}."""
    return {
        key.value if isinstance(key, ast.Constant) else key.attr
        for key in node.keys
        if isinstance(key, ast.Constant | ast.Attribute)
    }


# --- the rules -------------------------------------------------------------------------------------------------

WRITES_STATE = re.compile(r"\b(?:SET|DO\s+UPDATE)\b(?:(?!\bWHERE\b|\bRETURNING\b).)*?\bstate\s*=[^=]", re.I | re.S)
INSERTS_STATE = re.compile(r"\bINSERT\s+INTO\s+simulations\s*\([^)]*\bstate\b", re.I | re.S)


def writes_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What writes `simulations.state`, or could: nothing else that is stored has a column of this name."""
    for node in nodes_of(tree):
        match node:
            case ast.Assign(targets=targets):
                for target in targets:
                    for each in ast.walk(target):
                        if isinstance(each, ast.Attribute) and each.attr == "state" and dotted(each) != "self.state":
                            yield node.lineno, "assigns to an attribute called state"
            case (
                ast.AugAssign(target=ast.Attribute(attr="state") as target)
                | ast.AnnAssign(target=ast.Attribute(attr="state") as target)
            ) if dotted(target) != "self.state":
                yield node.lineno, "assigns to an attribute called state"
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value="state"), *_]):
                yield node.lineno, "sets an attribute called state"
            case ast.Call(func=func, args=args, keywords=keywords) if dotted(func).split(".")[-1] in (
                "values", "Simulation", "update", "insert", "on_conflict_do_update",
            ):  # fmt: skip
                if dotted(func) in ("Simulation", "strawberry.Simulation") and not _is_row(tree):
                    continue  # the GraphQL type of that name
                named = {keyword.arg for keyword in keywords}
                keys = {
                    key
                    for value in [*args, *(keyword.value for keyword in keywords)]
                    if isinstance(value, ast.Dict)
                    for key in keys_of(value)
                }
                if "state" in named | keys:
                    yield node.lineno, f"{dotted(func)}(state=...)"
            case ast.Dict() if "state" in keys_of(node) and _is_row(tree):
                yield node.lineno, "values for a row, state among them"
            case ast.Constant(value=str(sql)) if WRITES_STATE.search(sql) or INSERTS_STATE.search(sql):
                yield node.lineno, "SQL that writes state"


def _is_row(tree: ast.Module) -> bool:
    """Whether `Simulation` is the table's class in this module."""
    return any(
        isinstance(node, ast.ImportFrom) and _has_tables(node.module) and "Simulation" in {a.name for a in node.names}
        for node in nodes_of(tree)
    )


def _has_tables(module: str | None) -> bool:
    return module == "db.models" or (module or "").startswith("db.tables.")


# The statements that only `transitions` may send: they open, bind, stop and end what a simulation does.
TRANSITION_STATEMENTS = {
    "lifecycle": {"move", "begin", "finish", "end"},
    "attempts": {"create", "bind", "want_stop", "accept", "accept_end"},
    "convergence": {"take_in"},
}


def moves_simulations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What calls, imports or hands on one of these statements."""
    for node in nodes_of(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("db."):
                for each in names:
                    if each.name in TRANSITION_STATEMENTS.get(module.removeprefix("db."), ()):
                        yield node.lineno, f"imports {module}.{each.name}"
            case ast.Attribute() as found:
                module, _, name = dotted(found).rpartition(".")
                if name in TRANSITION_STATEMENTS.get(module.split(".")[-1], ()):
                    yield node.lineno, f"uses {module}.{name}"
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=module), ast.Constant(value=str(name)), *_]):
                if name in TRANSITION_STATEMENTS.get(module, ()):
                    yield node.lineno, f"uses {module}.{name}"


def _unread_columns() -> dict[str, frozenset[str]]:
    """The columns that `db/tables` keeps for the version before, by the name of their class."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in tables()]
    return {
        node.name: frozenset(
            each.target.id
            for each in node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            and isinstance(each.value, ast.Call) and dotted(each.value) == "unread"
        )
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }  # fmt: skip


UNREAD = {name: columns for name, columns in _unread_columns().items() if columns}
TABLES = {"simulations": "Simulation", "attempts": "Attempt"}
ALIAS = re.compile(
    r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(simulations|attempts)\b(?:\s+(?:AS\s+)?(?!SET\b|WHERE\b|ON\b)(\w+))?", re.I
)


def uses_unread_columns(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Expressions and SQL that use a column of the version before: they run, and read what is written no more."""
    classes = {name: name for name in UNREAD}
    for node in nodes_of(tree):
        match node:
            case ast.ImportFrom(module=module, names=names) if _has_tables(module):
                classes |= {each.asname: each.name for each in names if each.asname and each.name in UNREAD}
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="aliased"), args=[of, *_])):
                classes[name] = dotted(of).split(".")[-1]
    for node in nodes_of(tree):
        match node:
            case ast.Attribute(value=of, attr=name) if name in UNREAD.get(
                classes.get(dotted(of).split(".")[-1], ""), ()
            ):
                yield node.lineno, f"uses {dotted(node)}"
            case ast.Call(func=ast.Attribute(attr="values", value=statement), keywords=keywords):
                yield from ((node.lineno, f"writes {each}") for each in _unread_in(statement, keywords, classes))
            case ast.Constant(value=str(sql)):
                yield from ((node.lineno, f"SQL that uses {each}") for each in _unread_in_sql(sql))


def _unread_in(statement: ast.expr, keywords: list[ast.keyword], classes: dict[str, str]) -> set[str]:
    while isinstance(statement, ast.Call | ast.Attribute):
        if isinstance(statement, ast.Call) and dotted(statement.func) in ("insert", "update") and statement.args:
            of = classes.get(dotted(statement.args[0]).split(".")[-1], "")
            return {each.arg for each in keywords if each.arg is not None} & UNREAD.get(of, frozenset())
        statement = statement.func if isinstance(statement, ast.Call) else statement.value
    return set()


def _unread_in_sql(sql: str) -> set[str]:
    found = set()
    for table, alias in ALIAS.findall(sql):
        columns = "|".join(UNREAD[TABLES[table.lower()]])
        of = "|".join({table, alias} - {""})
        found |= {f"{table}.{name}" for name in re.findall(rf"\b(?:{of})\.({columns})\b", sql)}
    for table, written in re.findall(
        r"\bUPDATE\s+(simulations|attempts)\b.*?\bSET\b(.*?)(?:\bWHERE\b|\bFROM\b|$)", sql, re.S
    ):
        columns = "|".join(UNREAD[TABLES[table]])
        found |= {f"{table}.{name}" for name in re.findall(rf"\b({columns})\s*=", written)}
    return found


def reads_environment(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in nodes_of(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=("environ" | "environb" | "getenv" | "getenvb") as name):
                yield node.lineno, f"os.{name}"
            case ast.ImportFrom(module="os", names=names):
                for each in names:
                    if each.name in ("environ", "environb", "getenv", "getenvb"):
                        yield node.lineno, f"os.{each.name}"
            case ast.ClassDef(bases=bases) if "BaseSettings" in {dotted(base).split(".")[-1] for base in bases}:
                yield node.lineno, "BaseSettings"


def swallows_everything(tree: ast.Module) -> Iterator[tuple[int, str]]:
    broad = {"Exception", "BaseException"}
    for node in nodes_of(tree):
        match node:
            case ast.ExceptHandler(type=kind, body=body):
                kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind is not None else []
                if kinds and not broad & {dotted(each) for each in kinds}:
                    continue
                if all(isinstance(each, ast.Pass | ast.Continue | ast.Break) or _says_nothing(each) for each in body):
                    yield node.lineno, "swallows every error"
            case ast.Call(func=func, args=args) if dotted(func).split(".")[-1] == "suppress":
                if broad & {dotted(each) for each in args}:
                    yield node.lineno, "suppresses every error"


def _says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant()) | ast.Return(value=None) | ast.Return(value=ast.Constant()):
            return True
        case _:
            return False


def sleeps(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A sleep that is not the short pause of a loop that looks for something: wait for the thing itself."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    polling = {
        id(inner) for node in nodes_of(tree) if isinstance(node, ast.While | ast.For) for inner in ast.walk(node)
    }
    for node in nodes_of(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if dotted(node.func) not in ("time.sleep", "asyncio.sleep", "anyio.sleep", "sleep"):
            continue
        pause = node.args[0]
        seconds = constants.get(pause.id) if isinstance(pause, ast.Name) else getattr(pause, "value", None)
        if seconds == 0:
            continue
        if not isinstance(seconds, int | float) or seconds > LONGEST_POLL_SECONDS or id(node) not in polling:
            yield node.lineno, f"sleeps ({ast.unparse(node)})"


def limits_seconds(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A test that asserts how long something took: it says how busy the machine is. Count the work (CONTRIBUTING)."""
    for node in nodes_of(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=name) if name.removesuffix("_ns") in CPU_CLOCKS:
                yield node.lineno, f"reads time.{name}"
            case ast.ImportFrom(module="time", names=names):
                for each in names:
                    if each.name.removesuffix("_ns") in CPU_CLOCKS:
                        yield node.lineno, f"reads time.{each.name}"
            case ast.Assert(test=ast.Compare(left=ast.BinOp(op=ast.Sub(), left=clock), ops=[ast.Lt() | ast.LtE(), *_])):
                if isinstance(clock, ast.Call) and dotted(clock).split(".")[-1] in ("monotonic", "time"):
                    yield node.lineno, "asserts that less than some seconds have passed"


def has_no_docstring(tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not (ast.get_docstring(tree) or "").strip():
        yield 1, "no docstring"


def holds_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in tree.body[1:] if ast.get_docstring(tree) else tree.body:
        yield node.lineno, "code in a package's __init__"


OF_TESTS: tuple[Rule, ...] = (sleeps, limits_seconds)
OF_ROOMS: tuple[Rule, ...] = (
    writes_state, moves_simulations, uses_unread_columns, reads_environment, swallows_everything, has_no_docstring,
    holds_code,
)  # fmt: skip

NAMES_A_MODULE = re.compile(r"^(?: {4})?(\w+) {2,}\S", re.M)  # ruff takes the spaces away where no prose follows


def misnames_modules(init: Path) -> list[str]:
    """The modules and packages beside an `__init__` that its docstring has no line for, and lines for what is gone.

    A line is the name, at least two spaces, and what the module holds.
    """
    there = {path.stem for path in init.parent.glob("*.py")} | {path.parent.name for path in init.parent.glob("*/*.py")}
    story = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")), clean=False) or ""
    named = NAMES_A_MODULE.findall(story)
    lacking, gone = there - {"__init__"} - set(named), set(named) - there
    twice = {name for name in named if named.count(name) > 1}
    return [f"{name_of(init)}: {name}" for name in sorted(lacking | gone | twice)]


def uses_indefinite_pronouns(path: Path) -> list[str]:
    """The lines of a file, and of its name, with an indefinite pronoun; in identifiers, too."""
    text = path.read_text(encoding="utf-8")
    if not INDEFINITE.search(f"{path.name}\n{text}"):
        return []
    lines = [(0, path.name), *enumerate(text.splitlines(), 1)]
    return [f"{name_of(path)}:{number}: {line.strip()[:80]}" for number, line in lines if INDEFINITE.search(line)]


# --- they find what they are there for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        (writes_state, "simulation.state = S.RUNNING"),
        (writes_state, "a, row.state = 1, 2"),
        (writes_state, "row.state: str = x"),
        (writes_state, "setattr(row, 'state', x)"),
        (writes_state, "update(Simulation).where(Simulation.id == 1).values(state=x, **more)"),
        (writes_state, "update(Simulation).values({'state': x})"),
        (writes_state, "update(Simulation).values({Simulation.state: x})"),
        (writes_state, "statement.on_conflict_do_update(set_={'state': x})"),
        (writes_state, "from db.models import Simulation\nSimulation(name=n, state=x)"),
        (writes_state, "from db.tables.simulations import Simulation\nSimulation(name=n, state=x)"),
        (writes_state, "from db.models import Simulation\nvalues = {'state': x}\nupdate(Simulation).values(**values)"),
        (writes_state, "text('UPDATE simulations SET state = :state WHERE id = 1')"),
        (writes_state, "text('''update simulations as s\n set waiting = NULL,\n state='QUEUED' from x''')"),
        (writes_state, "text('INSERT INTO simulations (name, state) VALUES (1, 2)')"),
        (writes_state, "text(f'UPDATE simulations SET state = {x}')"),
        (moves_simulations, "from db.lifecycle import lock, move"),
        (moves_simulations, "from db import lifecycle\nawait lifecycle.move(session, 1)"),
        (moves_simulations, "import db.lifecycle\nverb = db.lifecycle.move"),
        (moves_simulations, "getattr(lifecycle, 'move')(session)"),
        (moves_simulations, "from db import attempts\nawait attempts.want_stop(session, 1)"),
        (moves_simulations, "from db.attempts import accept_end"),
        (moves_simulations, "await lifecycle.end(session, 1)"),
        (moves_simulations, "verb = convergence.take_in"),
        (reads_environment, "os.environ['A']"),
        (reads_environment, "os.getenv('A')"),
        (reads_environment, "from os import environ"),
        (reads_environment, "class More(BaseSettings): pass"),
        (swallows_everything, "try: f()\nexcept Exception: pass"),
        (swallows_everything, "try: f()\nexcept: pass"),
        (swallows_everything, "try: f()\nexcept (OSError, BaseException) as e: ..."),
        (swallows_everything, "def f():\n  try: g()\n  except Exception: return None"),
        (swallows_everything, "for i in x:\n  try: g()\n  except Exception: continue"),
        (swallows_everything, "with contextlib.suppress(Exception): f()"),
        (sleeps, "time.sleep(1)"),
        (sleeps, "time.sleep(0.01)"),
        (sleeps, "while True: time.sleep(0.5)"),
        (uses_unread_columns, "select(Attempt.id).where(Attempt.heartbeat_at < x)"),
        (uses_unread_columns, "select(models.Simulation.stop_wanted_at)"),
        (uses_unread_columns, "from db.models import Attempt as Row\nRow.host"),
        (uses_unread_columns, "from db.tables.attempts import Attempt as Row\nRow.host"),
        (uses_unread_columns, "a = aliased(Attempt)\nselect(a.nonce)"),
        (uses_unread_columns, "update(Attempt).where(Attempt.id == 1).values(launched_at=x)"),
        (uses_unread_columns, "insert(Simulation).values(waiting='x').returning(Simulation.id)"),
        (uses_unread_columns, "text('SELECT a.id FROM attempts AS a WHERE a.ended_at IS NULL AND a.host = 1')"),
        (uses_unread_columns, "text('SELECT 1 FROM members m JOIN attempts a ON true WHERE a.token_digest = 1')"),
        (uses_unread_columns, "SQL = 'UPDATE attempts SET ended_at = 1, heartbeat_at = now() WHERE id = 1'"),
        (sleeps, "while True: await asyncio.sleep(pause)"),
        (sleeps, "PAUSE = 1\nwhile x: time.sleep(PAUSE)"),
        (limits_seconds, "began = time.process_time()"),
        (limits_seconds, "import time\nbegan = time.perf_counter_ns()"),
        (limits_seconds, "from time import thread_time"),
        (limits_seconds, "assert time.monotonic() - began < 5, 'fast'"),
        (limits_seconds, "assert asyncio.get_running_loop().time() - began <= 0.1"),
        (has_no_docstring, "x = 1"),
        (has_no_docstring, ""),
        (holds_code, '"""Story."""\nfrom db import x'),
        (holds_code, "x = 1"),
    ],
)
def test_the_rule_finds(rule: Rule, breach: str) -> None:
    assert list(rule(ast.parse(breach)))


@pytest.mark.parametrize(
    ("rule", "clean"),
    [
        (writes_state, "self.state = x"),
        (writes_state, "Simulation(id=1, state=row.state)"),  # the GraphQL type
        (writes_state, "state = x"),
        (writes_state, "select(S).where(S.state == x)"),
        (writes_state, "text(\"UPDATE simulations SET waiting = 1 WHERE state = 'QUEUED'\")"),
        (writes_state, "Head(state=x)"),
        (moves_simulations, "from db.lifecycle import lock\nlock(session, 1)"),
        (moves_simulations, "shutil.move(a, b)"),
        (uses_unread_columns, "select(Member.heartbeat_at, Attempt.ended_at, Attempt.stop_wanted_at)"),
        (uses_unread_columns, "update(Member).values(launched_at=x)"),
        (uses_unread_columns, "text('SELECT m.host FROM members m JOIN attempts a ON a.id = m.attempt_id')"),
        (uses_unread_columns, "simulation.waiting"),  # the GraphQL type's; of a row it raises
        (reads_environment, "environment['A']"),
        (swallows_everything, "try: f()\nexcept OSError: pass"),
        (swallows_everything, "try: f()\nexcept Exception as e: log.error(e)"),
        (swallows_everything, "try: f()\nexcept BaseException:\n  g()\n  raise"),
        (sleeps, "await asyncio.sleep(0)"),
        (sleeps, "while not found(): time.sleep(0.01)"),
        (limits_seconds, "assert time.monotonic() < deadline, 'it never came'"),
        (limits_seconds, "assert 0 <= elapsed < time.monotonic() - began"),
        (has_no_docstring, '"""Story."""'),
        (holds_code, '"""Story."""'),
    ],
)
def test_the_rule_lets_pass(rule: Rule, clean: str) -> None:
    assert not list(rule(ast.parse(clean)))


def test_an_init_that_lacks_a_module_or_names_one_that_is_gone_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    init = tmp_path / "__init__.py"
    for name in ("here.py", "new.py", "inner/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"""Story."""', encoding="utf-8")
    init.write_text('"""Story.\n\n    here    what it holds\n    old     what it held\n"""', encoding="utf-8")
    assert misnames_modules(init) == ["__init__.py: inner", "__init__.py: new", "__init__.py: old"]
    init.write_text('"""Story.\n\n    here    one\n    new     two\n    inner   three\n"""', encoding="utf-8")
    assert misnames_modules(init) == []


@pytest.mark.parametrize(
    "breach",
    [
        "# Who|ever comes",
        '"""Tell no|body."""',
        "SOME|BODY = Actor()",
        "def test_no|bodys_token_is_valid(): ...",
        "Some|body",
    ],
)
@pytest.mark.parametrize("name", ["a.py", "web/src/A.svelte", "docs/a.md", "schema.graphql", ".ci/run", "Makefile"])
def test_an_indefinite_pronoun_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, breach: str
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for each, text in (
        (name, f"first line\n{breach.replace('|', '')}\n"),
        ("clean.py", "# No process has a body; some bodies do, who ever reads them."),
        ("web/node_modules/b.ts", "who|ever".replace("|", "")),
        (".venv/b.py", "no|body".replace("|", "")),
    ):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_text(text, encoding="utf-8")
    found = [each for path in texts() for each in uses_indefinite_pronouns(path)]
    assert [each.split(": ")[0] for each in found] == [f"{name}:2"]


# --- and this house keeps them ---------------------------------------------------------------------------------


def test_only_the_state_machine_writes_the_state_of_simulations() -> None:
    lifecycle = ROOT / "db" / "lifecycle.py"
    assert len(breaches(writes_state, [lifecycle])) == 1, "there is one guarded statement"
    assert breaches(writes_state, [path for path in modules() if path != lifecycle]) == []


def test_only_transitions_move_simulations_and_each_from_one_place() -> None:
    lifecycle, room = ROOT / "db" / "lifecycle.py", ROOT / "transitions"
    assert breaches(moves_simulations, [p for p in modules() if p != lifecycle and room not in p.parents]) == []
    used = [breach.split(":", 2)[::2] for breach in breaches(moves_simulations, sorted(room.rglob("*.py")))]
    moves = [path for path, what in used if what.endswith("lifecycle.move")]
    assert moves == [f"transitions/{name}.py" for name in ("assign", "begin", "cancel", "release")]
    assert [path for path, what in used if what.endswith("lifecycle.end")] == ["transitions/settle.py"]
    assert len({what for _, what in used}) == sum(map(len, TRANSITION_STATEMENTS.values())), "none is left over"


def test_columns_of_the_version_before_are_not_used() -> None:
    assert UNREAD.keys() == set(TABLES.values())
    assert breaches(uses_unread_columns, [path for path in modules() if path not in tables()]) == []


def test_only_settings_reads_the_environment() -> None:
    assert breaches(reads_environment, [path for path in modules() if name_of(path) not in READS_ENVIRONMENT]) == []


def test_no_error_is_swallowed() -> None:
    assert breaches(swallows_everything, modules()) == []


def test_no_test_sleeps_where_it_could_wait() -> None:
    assert breaches(sleeps, own_tests()) == []


def test_no_test_asserts_how_long_something_took() -> None:
    assert breaches(limits_seconds, own_tests()) == []


def test_every_module_says_what_it_is_responsible_for() -> None:
    assert breaches(has_no_docstring, modules()) == []


def test_a_package_holds_its_story_and_no_code() -> None:
    assert breaches(holds_code, [path for path in modules() if path.name == "__init__.py"]) == []
    assert all((ROOT / room / "__init__.py").is_file() for room in ROOMS)


def test_a_package_names_each_of_its_modules_with_a_line() -> None:
    assert [each for path in modules() if path.name == "__init__.py" for each in misnames_modules(path)] == []


def test_sentences_and_identifiers_have_no_indefinite_pronouns() -> None:
    assert [each for path in texts() for each in uses_indefinite_pronouns(path)] == []


def test_tests_mirror_rooms_module_by_module() -> None:
    names = [f"{room}/{path.name}" for room in MIRRORED for path in (ROOT / room).glob("*.py")]
    untested = {
        name for name in names
        if not name.endswith("__init__.py") and not (ROOT / "tests" / name.replace("/", "/test_")).exists()
    }  # fmt: skip
    assert untested == set(TESTED_ELSEWHERE)
    assert [each for each in TESTED_ELSEWHERE.values() if not (ROOT / each).exists()] == []


def test_neither_the_migrations_nor_the_tests_are_packages() -> None:
    assert not list((ROOT / "alembic").rglob("__init__.py")), "alembic/ would shadow the library"
    assert not [path for path in own_tests() if path.name == "__init__.py"]


def test_the_top_level_is_what_the_design_names_and_nothing_else() -> None:
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and not any(path.match(pattern) for pattern in NEVER_COMMITTED)
    }
    assert REQUIRED - found == set()
    surplus = {name for name in found - REQUIRED if not any(Path(name).match(pattern) for pattern in ALLOWED)}
    assert surplus == set()
