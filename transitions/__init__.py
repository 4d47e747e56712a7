"""Transitions of a simulation: the only package that changes its state or stop intent, each transition written once.

    submit     new simulations, one or many, and repetitions: held until those that they run after have ended
    pause      what waits is no candidate for a machine until it is resumed
    release    what an end means for those that run after it: released, or cancelled
    assign     QUEUED -> STARTING: the next attempt, its members each on a machine
    budget     accounts of budgets, and the starts that they do not pay for, under lock
    begin      STARTING -> RUNNING: the hello of the last of an attempt's supervisors
    ingest     a supervisor's report: points, log and exit, stored once and acknowledged when committed
    report     validation of a report
    stop       the intent that the current attempt ends, with its reason and evidence
    preempt    the same to make room: the simulation goes back to the queue, and no retry is used up
    cancel     QUEUED -> CANCELLED at once; a stop intent for a simulation on a machine
    update     changes of its name, tags, notes, priority, rules and limits, also while it runs
    sweep      trials of sweeps begin and end, sweeps end; cancel and extend
    settle     the end of an attempt, with its last member's: by an exit, a loss, a launch error or a stop; final, or
               back to QUEUED
    journal    one line in the log for each transition, written when its transaction has committed

    QUEUED --assign--> STARTING --begin--> RUNNING --settle--> FINISHED | FAILED | CANCELLED
      ^                   |                   |
      +------ settle, to be retried ----------+            QUEUED --cancel--> CANCELLED

Callers (resolvers of `graph`, loops of `scheduler`) read rows, call `policy` for a judgement, and pass the verdict on.
A transition runs in its caller's transaction, takes the session first, and returns whether it took place: False or None
is a fact about the row (another transaction was first), never an error. Only `ingest` owns its transaction, which for
points alone is a single statement.

Each transition is a guarded statement (`db.lifecycle.move`) with its event row and a hint to subscribers and planner,
and a line in the log. Assignment moves many simulations at once; one that has changed meanwhile drops out alone. Locks:
sweep, simulation, attempt, member, machine, project, budget, in this order. This package uses `db` and `policy`, reads
no settings (durations are arguments), and never decides which simulation comes first or which rule stops one.
"""
