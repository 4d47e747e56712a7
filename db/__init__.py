"""Database access: tables, the state machine, every SQL statement, notifications and the embedded server.

Rows are authoritative. Other packages share state only through them, and a notification is a hint: without
notifications everything works, only slower.

    connection            addresses, engines, sessions
    array_types           array types that a connection need not look up
    models                all tables, for imports from one place
    tables                the tables, one module per subject
    schema                migrate, and refuse a database that does not match
    states                the enums that rows are written in
    errors                the expected errors, and what drivers raise while the database is away
    outage                detect an outage, log it once, cut off hanging connections
    lifecycle             the state machine: the one statement that writes `state`
    attempts              from assignment to the end: launches, hellos, reports, stop intents
    silence               beats of processes, and what is lost, overdue or spent
    due                   what a planner's round has to do, in one statement
    simulations           create, find, delete
    listing               lists of simulations: filters, sort orders, pages
    names                 names of the metrics and parameters that simulations have
    references            simulations by id, number or name
    sweeps                sweeps, their trials, and results at the rungs of successive halving
    dependencies          which simulations run after which
    queue                 the queue by classes of equal requirements, and why each waits
    running               simulations on machines as a plan sees them: what they hold, how far they are
    past_runs             what ended: decayed cost of projects, and how long runs of a kind took
    newest_plan           the newest plan: the order of the queue, and what is reserved
    machines              machines and hosts: join, declare, drain, what is free
    projects              projects with their weights and quotas, and the scope of a viewer
    convergence           the log of points: batches of columns
    curve                 one metric read back over all attempts
    curve_levels          long curves of ended simulations, thinned once and kept
    packed                arrays of numbers as wire bytes
    windows               a metric averaged in windows, and finished runs of the same name
    judged                running simulations with stop rules, and their new points
    metrics               count, last, minimum and maximum of each metric
    results               the metrics of ended simulations, to sort lists by
    logs                  output of a simulation that is no point
    notices               output that was nearly points, or was dropped
    files                 stored checkpoints and outputs: lists of files, their pieces, quotas
    packages              packages of code that simulations start in
    checkpoints           times of the newest checkpoints
    sources               the git commit, host, Python and packages of an attempt
    events                the history of simulations, and the audit of everything else
    alert_targets         receivers of alerts: create, list, delete
    alert_deliveries      the outbox of alerts: pending events, messages, their sending
    billing               resources held by attempts, and for how long
    budgets               budgets, and what was spent of each
    costs                 what was spent, by project, user, machine, name, tag and time
    overview              simulations queued and running now
    watch_leases          leases of processes with subscribers of attended simulations
    tokens                API tokens
    logins                browser logins
    require_admin_token   refuse to start if a login is needed and no token exists
    leader                the lock of the leader election, and its holder
    installation          the identity of this installation
    health_queries        figures of the whole installation, for /metrics and `doctor`
    notifications         NOTIFY and LISTEN
    pages                 keyset pages
    public_ids            Relay ids
    embedded              a PostgreSQL server from a wheel

Functions take a session first, never commit (the caller owns the transaction) and await nothing but Postgres.
`get_*` raises NotFound, `find_*` returns None, `page_*` returns a page. Locks are taken in one order everywhere:
sweep, simulation, attempt, member, machine, project, budget; always FOR NO KEY UPDATE, because a foreign key's KEY
SHARE against FOR UPDATE deadlocks. This package reads and writes; it never decides between machines.
"""
