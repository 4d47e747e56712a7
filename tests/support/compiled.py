"""SQL that is compiled once for all tests of a process, not anew in each.

SQLAlchemy keeps what it has compiled with an engine, and each test has engines of its own: to compile the same
statements again took a tenth of the tests' CPU. They are on databases of one server and of the same tables, by one
dialect; here all engines share a cache, and their dialects are equal, so that one finds what another has compiled.

What a dialect asks the server at an engine's first connection (version, schema, isolation) is asked once, too.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import util
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import Connection, Engine

MOST = 2_000  # statements

_compiled: Any = util.LRUCache(MOST)
_learnt: dict[str, Any] = {}  # attributes of a dialect
_initialize: Any = PGDialect_asyncpg.initialize


def share() -> None:
    """Have all engines share what they compile and what they learn of the server."""
    Engine._compiled_cache = property(lambda _: _compiled, lambda *_: None)  # type: ignore[assignment]
    PGDialect_asyncpg.__eq__ = lambda one, other: type(one) is type(other)  # type: ignore[method-assign,assignment]
    PGDialect_asyncpg.__hash__ = lambda one: hash(type(one))  # type: ignore[method-assign,assignment]
    PGDialect_asyncpg.initialize = _initialized  # type: ignore[method-assign,assignment]


def _initialized(dialect: PGDialect_asyncpg, connection: Connection) -> None:
    if not _learnt:
        before = dict(vars(dialect))
        _initialize(dialect, connection)
        _learnt.update((name, value) for name, value in vars(dialect).items() if before.get(name, ...) is not value)
    vars(dialect).update(_learnt)
