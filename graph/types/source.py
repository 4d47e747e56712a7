"""Source of a simulation: what its newest attempt ran, as recorded by the supervisor without being asked."""

from __future__ import annotations

from typing import Self

import strawberry
from strawberry.scalars import JSON

from db import sources


@strawberry.type(description="What an attempt ran. A field is null where it was not found.")
class Source:
    commit: str | None = strawberry.field(
        description="The git commit of the working directory, or of the program's directory."
    )
    dirty: bool | None = strawberry.field(
        description="Whether tracked files differed from the commit; null if git did not answer."
    )
    remote: str | None = strawberry.field(description="The URL of the git remote, without credentials.")
    command: list[str] = strawberry.field(description="The command that was started, cut after 8 KiB.")
    host: str | None = strawberry.field(description="The name of the host.")
    python: str | None = strawberry.field(description="The version of the command's Python.")
    packages: JSON = strawberry.field(description="An object: the version of each package that this Python finds.")

    @classmethod
    def of(cls, row: sources.Source) -> Self:
        return cls(
            commit=row.commit,
            dirty=row.dirty,
            remote=row.remote,
            command=list(row.command),
            host=row.host,
            python=row.python,
            packages=JSON(dict(row.packages)),
        )
