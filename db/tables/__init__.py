"""Tables, without behaviour: functions are in `db`'s modules named after the tables; only `lifecycle` writes `state`.

    base         the declarative base: naming, column types, columns that most tables have
    simulations  simulations, the indexes of their lists and of the queue, their numbers, and dependencies between them
    sweeps       sweeps, their trials, and results at the rungs of successive halving
    queue        what the planner writes of the queue: waiting reasons by class, and the newest plan
    machines     machines, and the hosts whose schedulers launch work on them
    attempts     attempts and their members, and what deleted ones cost
    projects     projects and budgets
    points       batches of points, curves thinned, summaries of metrics, and parameters as lists are sorted by them
    output       what attempts leave beside points: logs, notices and sources
    files        stored files, packages of code, and the pieces of both
    access       API tokens and browser logins
    events       events, alert targets, and the deliveries of alerts
    processes    beats of processes: watch leases of graph, coverage of roles

Conventions: `*_at` is timestamptz in UTC, durations are intervals, money is numeric, ids are bigint inside (Relay
ids are made in `graph`). Relationships are not mapped: each statement selects what its caller needs. Other modules
import the tables from `db.models`, which loads them all: a foreign key names a table by its text.
"""
