"""The memory: tables, the state machine, every SQL statement, notifications and the embedded server.

Rows are the truth. The rooms meet only here, and a notification is a hint: everything works, only slower,
without them.

    connection   addresses, engines, sessions           models      the tables
    embedded     PostgreSQL out of a wheel              schema      migrate, and refuse what does not match
    lifecycle    the one place that writes `state`      attempts    hello, reports, heartbeats, losses
    simulations, machines, projects, convergence, logs, events      one noun each, a list of verbs

Functions take a session first, never commit (the caller owns the transaction) and await nothing but Postgres.
`get_*` raises NotFound, `find_*` returns None, `page_*` returns a page. Locks are taken in one order everywhere:
simulation, attempt, machine; always FOR NO KEY UPDATE, because a foreign key's KEY SHARE against FOR UPDATE
deadlocks. This room answers and records; it never decides between machines.
"""
