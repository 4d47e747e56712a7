"""Package of a simulation in GraphQL: the directory of code that it starts in. Its bytes: graph/http/packages.py."""

from __future__ import annotations

from typing import Self
from urllib.parse import quote

import strawberry

from db import models
from db.public_ids import encode
from graph.types.scalars import Step


@strawberry.input(description="A package that was uploaded to `/packages/DIGEST`.")
class PackageInput:
    digest: str = strawberry.field(description="SHA-256 of the archive, in hexadecimal.")
    name: str | None = strawberry.field(default=None, description="What people call it: the name of the directory.")
    commit: str | None = strawberry.field(default=None, description="The git commit of the directory.")
    dirty: bool | None = strawberry.field(default=None, description="Whether the directory differed from the commit.")


@strawberry.type(description="The directory of code that a simulation starts in, as its user has packed it.")
class Package:
    digest: str = strawberry.field(description="SHA-256 of the archive, in hexadecimal.")
    size_bytes: Step = strawberry.field(description="The size of the archive.")
    name: str | None = strawberry.field(description="What its user calls it: the name of the directory.")
    commit: str | None = strawberry.field(description="The git commit of the directory, as its user's client has it.")
    dirty: bool | None = strawberry.field(description="Whether the directory differed from that commit.")
    url: str = strawberry.field(
        description="The address of the archive (tar) on this service, relative to its root. Needs the same login."
    )

    @classmethod
    def of(cls, simulation: models.Simulation, row: models.Package) -> Self:
        said = simulation.package_source or {}
        return cls(
            digest=row.digest.hex(),
            size_bytes=Step(row.size_bytes),
            name=said.get("name"),
            commit=said.get("commit"),
            dirty=said.get("dirty"),
            url=f"/files/{quote(encode('Simulation', simulation.id), safe='')}/package",
        )
