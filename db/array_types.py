"""Array types of PostgreSQL, known beforehand: a connection that meets one asks the server nothing.

asyncpg knows the built-in scalar types and asks for any other, arrays of these included, once in each connection, by a
recursive statement over the catalogue: 10 ms of the server's CPU, which is most of what the first statements of a
connection cost. Object ids below 10,000 are assigned by hand in PostgreSQL's sources and never change (`pg_type.dat`;
"System Catalog Initial Data" in its manual). Any other type is looked up as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import asyncpg
from asyncpg.protocol.protocol import BUILTIN_TYPE_NAME_MAP

# The object id of each array type, by the name of its elements.
ARRAYS = {
    "bool": 1000, "bytea": 1001, "name": 1003, "int2": 1005, "int4": 1007, "int8": 1016, "text": 1009, "oid": 1028,
    "bpchar": 1014, "varchar": 1015, "float4": 1021, "float8": 1022, "inet": 1041, "timestamp": 1115, "date": 1182,
    "timestamptz": 1185, "interval": 1187, "numeric": 1231, "uuid": 2951, "json": 199, "jsonb": 3807,
}  # fmt: skip
# As the statement returns them: what asyncpg reads of an array, and None for what it reads of other kinds.
KNOWN: dict[int, dict[str, Any]] = {
    oid: {
        "oid": oid, "ns": "pg_catalog", "name": f"_{name}", "kind": b"b", "basetype": None, "elemdelim": ",",
        "elemtype": BUILTIN_TYPE_NAME_MAP[name], "range_subtype": None, "attrtypoids": None, "attrnames": None,
    }
    for name, oid in ARRAYS.items()
}  # fmt: skip
NOT_ASKED = SimpleNamespace(name="not asked")  # where asyncpg looks whether its own statement replaced the caller's


class Connection(asyncpg.Connection):
    """asyncpg's, which looks up only the types that are not in `KNOWN`."""

    __slots__ = ()

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        wanted = set(typeoids)
        if wanted <= KNOWN.keys():
            return [KNOWN[oid] for oid in wanted], NOT_ASKED
        return await super()._introspect_types(wanted, timeout)  # type: ignore[misc]  # the stubs leave it out
