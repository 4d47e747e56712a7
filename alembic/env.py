"""Run the migrations, on a connection given by `db.schema`, or on DATABASE_URL when alembic's own command is used.

One migration run at a time (an advisory lock); a statement that would block the service's queries gives up instead
(lock_timeout), and one that runs away ends (statement_timeout). Each run is one transaction.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from db.connection import create_engine
from db.models import Base

ADVISORY_LOCK = 0x53494D55  # "SIMU": any fixed number that no other lock uses


def run(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text("SET statement_timeout = '15min'"))
    connection.commit()
    # Waiting for another migration is no lock on a table: it may take as long as that one takes.
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
    connection.commit()
    try:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("RESET lock_timeout"))
        connection.execute(text("RESET statement_timeout"))
        connection.commit()


async def run_on_database_url() -> None:
    from settings import load

    url = load().database_url
    if url is None:
        raise SystemExit("DATABASE_URL is not set. For the embedded database run: simulations migrate")
    engine = create_engine(url, pool_size=1, application="alembic")
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("These migrations read the database: they can't be printed as SQL.")
given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(run_on_database_url())
else:
    run(given)
