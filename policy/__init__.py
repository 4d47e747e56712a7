"""The judgement: who gets which machine, what it costs, what happens after an attempt has ended.

Pure functions from frozen dataclasses to frozen dataclasses. Nothing here reads a clock, a row, a socket or a random
number: times are arguments, and the same arguments give the same answer, whatever order they come in. That is why
the scheduler, the replay of a recorded day and the tests can call the very same functions, and why a decision can be
explained afterwards: hand it what was known then.

    placement     the queue and the machines in, a machine or a reason to wait out, for every request
    matching      what a request requires of a machine, and whether the machine has it
    waiting       why a request waits, in a sentence for the person who waits
    offer         what the machines of a host offer together, and whether it has that much
    phrasing      amounts, prices and other users' names, as those sentences write them
    cost          the share of a machine that is billed, and the price of a stretch of time
    retry         retry or final, what an exit means, what is lost, overdue or unwatched
    metric_mode   whether a metric is better high or low, by its name

This room decides and does nothing. The scheduler acts, and may find that the world has moved on meanwhile: a
placement is advice about the moment it was asked for, checked again under the machine's lock before it counts.
"""
