"""The planner, and the hands' master: who gets which machine next, and what becomes of an attempt that went wrong.

    planner       one leader: what waits is matched to what is free; what was lost is found    `tick()`
    queue_memory  what the planner remembers of the queue, so that it judges only what has changed
    host          on each host: launches, probes and ends what is assigned to this host        `run_once()`
    leftovers     what a dead supervisor left on disk is stored before its attempt is settled
    leader        which of several schedulers plans: whoever holds a lock of the database
    run_loop      the loop round both, woken by notifications and by timer
    metrics       what it counts of itself, for Prometheus
    __main__      the process, wired top to bottom
    identity      the id of this host, kept in its data directory

Nothing that matters is remembered between two rounds: every round reads rows, asks `policy`, and acts on what it is
told; what `queue_memory` keeps only saves work, and an empty one does as well. So a scheduler that is killed anywhere
leaves rows behind that the next round, or the next scheduler, understands; and two leaders at once do no harm, because
every act is guarded in its own transaction and checked again under lock.

What waits on processes (an engine) never happens inside a transaction. A launch is three steps: claim it in the row,
start the supervisor, note it in the row. Cut off after the first, it is claimed again with a new token; cut off
after the second, the running supervisor is found and noted.

An attempt is lost when nothing was heard of it for a lease in which it could have been heard. If its host's own
scheduler lives, that one ends it first and proves it dead; only where the host is silent too, the planner gives
the work to another machine without proof, and the fence keeps what the old attempt may still send out of the rows.
"""
