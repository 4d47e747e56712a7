"""Scheduler process: the planner (leader only) and one loop per host that launches, probes and ends attempts.

    planner       one leader: match the queue to free machines, end lost attempts            `tick()`
    enforcement   the planner's steps that end lost attempts and stop overdue, spent and unwatched ones
    execution     carry out a plan: preemptions and placements, checked again under lock
    affordable    classes of the queue that no budget pays for
    inputs        rows and settings as `policy` takes them
    judge         one leader: stop running simulations by their stop rules                     `run_once()`
    spending      the leader's look at budgets: warn, stop attempts before one is used up        `watch()`
    alerts        one leader: write the deliveries of events, and send them                    `run_once()`
    alert_messages  messages of alerts, from events and rows
    alert_webhooks  signed webhooks, to checked addresses
    alert_apprise   notifications by Apprise, each in a process of its own
    apprise_process  that process
    sweeps        one leader: begin the trials of sweeps, record how they ended               `run_once()`
    front         running simulations as the judge keeps them: rules applied so far, cursors as columns
    rungs         the judge's watch of a trial: its results at the rungs of successive halving
    queue_memory  the planner's memory of the queue, so that a round reads and judges only what has changed
    record        what projects used and how long runs took, which the order of the queue depends on
    host          on each host: launch, probe and end the attempts assigned to this host    `run_once()`
    cluster       the loop of an engine that is on no host of ours: a Ray cluster            `run_once()`
    leftovers     store the undelivered batches of a dead supervisor before its attempt is settled
    leader        leader election by an advisory lock of the database
    run_loop      the loop of both, woken by notifications and by timer
    metrics       the scheduler's own Prometheus metrics
    __main__      the process, wired top to bottom
    identity      the id of this host, kept in its data directory

A round keeps no state that the next one needs: every round reads rows, calls `policy`, and carries out the result;
`queue_memory` only saves work, and an empty one gives the same result. So a scheduler may be killed at any point, and
the next round, or the next scheduler, goes on from the rows; and two leaders at once do no harm, because every change
is guarded in its own transaction and checked again under lock.

No transaction is open during a call of an engine, which waits on processes. A launch has three steps: claim it in the
row, start the supervisor, note it in the row. If the scheduler is killed after the first, the launch is claimed again
with a new token; after the second, the running supervisor is found and noted.

An attempt is lost after a lease without a report, counted only while reports could have arrived. If its host's
scheduler lives, that scheduler kills the attempt first and proves it dead; if the host is silent too, the planner gives
the simulation to another machine without proof, and the fence rejects the old attempt's late reports.
"""
