"""What happens to a simulation: the only room that changes its state or its stop intent, each change written once.

    assign     QUEUED -> STARTING: the next attempt, on a machine
    begin      STARTING -> RUNNING: a supervisor's hello
    ingest     a supervisor's report: points, log and exit, stored once and acknowledged when committed
    report     what a supervisor brings, checked
    stop       the intent that the current attempt ends, with its reason and what that was judged by
    preempt    the same to make room: the simulation goes back to the queue, and no retry is used up
    cancel     QUEUED -> CANCELLED at once; a stop intent for what is on a machine
    settle     the end of an attempt, by an exit, a loss, a launch error or a stop: final, or back to QUEUED
    journal    one line in the log for each transition, written when its transaction has committed

    QUEUED --assign--> STARTING --begin--> RUNNING --settle--> FINISHED | FAILED | CANCELLED
      ^                   |                   |
      +------ settle, to be retried ----------+            QUEUED --cancel--> CANCELLED

Callers (resolvers of `graph`, loops of `scheduler`) read rows, ask `policy` where there is something to judge, and hand
the verdict over. A transition runs in its caller's transaction, takes the session first, and returns whether it took
place: a False or None is a fact about the row (another transaction was first), never an error. Only `ingest` owns its
transaction, which for points alone is a single statement.

Each one is a guarded statement (`db.lifecycle.move`), its event row, a hint to subscribers and planner, and a line in
the log. Locks: simulation, attempt, member, machine, in this order. This room uses `db` and `policy`, reads no settings
(durations are arguments), and never decides which simulation comes first or which rule stops it.
"""
