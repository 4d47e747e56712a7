"""Decisions: which machine a request gets, what it costs, and what follows the end of an attempt.

Pure functions from frozen dataclasses to frozen dataclasses. No function reads a clock, a row, a socket or a random
number: times are arguments, and equal arguments in any order give equal results. The scheduler, the replay of a
recorded day and the tests therefore call the same functions, and a past decision can be explained by calling them
again with the recorded input.

    schedule      one plan: who starts where, who is preempted, what is reserved, why others wait
    plan          its result
    workload      its input: runs, projects, and the settings of the policy
    queue_order   the order of service, and the queue kept in it
    expected      the key of that order: the work that is still expected of a run
    learning      what is expected of runs that declare nothing, from those that have ended
    speeds        how fast machines are for each learning class, from the step rates that its runs had there
    fairness      weighted fair share of projects, as a factor of that key
    room          free room of the machines, and the choice among them
    preemption    which runs make room for one that is before them
    reservation   machines kept for the first that can't be placed, and who may use them until then
    why           why a run waits behind others, or was preempted, as sentences
    placement     what the planner asks around a plan: what fits now, what is left after it, what still fits under lock
    starting      which machines that are not there yet a cluster is to start
    matching      requirements of a request, and whether a machine meets them
    waiting       waiting reasons, as sentences for the user
    offer         notice when the machines of one host offer more than the host has
    phrasing      formatting of amounts, prices and names in those sentences
    cost          the billed share of a machine, and the cost of a period
    dependencies  what follows an end for the simulations that run after it; cycles
    quota         how many GPUs a project may use at once
    budget        what a budget has left, whether another attempt may start, and which ones to stop
    retry         retry or final, the meaning of an exit, lost, overdue and unwatched attempts
    stopping      stop rules of a run: plateau, thresholds, non-finite values; verdicts with evidence
    rule_documents  those rules as JSON, as a simulation's row keeps them
    evaluations   the curve as those rules see it: thinned, with its best value and the trend since
    search_space  parameters that a sweep searches: ranges, choices, grids, and `{lr}` in a command
    sampling      the next parameters, and the importance of parameters, by Optuna
    sweep_progress  how a trial ended, whether another begins, with how much money, and when a sweep is over
    sweep         rules that stop a sweep's losers: successive halving, the median rule
    forecast      the value of a metric at a later step, and what holds about a target
    outlook       time and money until a step, and the sentences of a forecast
    savings       what a stop saved: the rest of the run as time and money
    alerts        kinds of an event, whom its alert is sent to, when a delivery is tried again
    alert_text    an alert in words
    addresses     network addresses that a request on behalf of a user may go to
    metric_mode   whether higher or lower values of a metric are better, from its name

This package decides and changes nothing. The scheduler applies a decision, and the state may have changed meanwhile:
a placement is valid for the moment of its input, and is checked again under the machine's lock before it takes effect.
"""
