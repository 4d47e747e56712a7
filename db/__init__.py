"""The database: tables, the state machine, every SQL statement, notifications and the embedded server.

Rows are the truth. The rooms meet only here, and a notification is a hint: everything works, only slower,
without them.

    connection            addresses, engines, sessions
    models                the tables
    schema                migrate, and refuse a database that does not match
    states                the enums that rows are written in
    errors                the expected errors, and what drivers raise while the database is away
    outage                notices an outage, logs it once, cuts off what hangs
    lifecycle             the state machine: the one statement that writes `state`
    attempts              launches, reports, heartbeats, coverage
    simulations           create, list, repeat, delete
    queue                 the queue by classes of equal requirements, and why each waits
    machines              machines and hosts: join, declare, drain, what is free
    projects              projects, and the scope of a viewer
    convergence           the log of points: batches of columns
    curve                 one metric read back over all attempts
    metrics               count, last, minimum and maximum of each metric
    logs                  what a simulation printed that was no point
    events                the history of simulations, and the audit of everything else
    billing               what attempts hold of machines, and for how long
    overview              what is queued and running now
    watch_leases          which processes have subscribers of attended simulations
    tokens                API tokens
    logins                browsers that signed in with a token
    require_admin_token   refuses to start where a login is needed and no token exists
    leader                the lock that planners elect one by, and who holds it
    health_queries        figures of the whole installation, for /metrics and `doctor`
    notifications         NOTIFY and LISTEN
    pages                 keyset pages
    public_ids            Relay ids
    embedded              a PostgreSQL server out of a wheel

Functions take a session first, never commit (the caller owns the transaction) and await nothing but Postgres.
`get_*` raises NotFound, `find_*` returns None, `page_*` returns a page. Locks are taken in one order everywhere:
simulation, attempt, member, machine; always FOR NO KEY UPDATE, because a foreign key's KEY SHARE against FOR UPDATE
deadlocks. This room answers and records; it never decides between machines.
"""
