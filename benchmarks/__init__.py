"""Benchmarks of the performance claims: each value with a floor measured in the same run.

    python -m benchmarks              all without an argument, one after the other, and a table of goals (`make bench`)
    python -m benchmarks.dispatch     short simulations per second, against starts of a bare interpreter
    python -m benchmarks.latency      latency from submit to RUNNING, and from a printed line to a subscriber
    python -m benchmarks.fanout       CPU time of a delivery to one of many subscribers, against a bare loop of sends
    python -m benchmarks.ingest       CPU time of accepting a batch, against writing its rows with asyncpg
    python -m benchmarks.curve        a million points read back as a thousand, against reading the rows
    python -m benchmarks.memory       memory of subscribers, idle ones and ones that never read
    python -m benchmarks.overhead     CPU time of limits, costs and permissions for a small query, against a bare schema
    python -m benchmarks.lines        CPU time of the readers for a line of output, against `--metrics none`
    python -m benchmarks.sources      wall and CPU time with all sources and system metrics on, against all of them off
    python -m benchmarks.judge        CPU time of stop rules over 10,000 runs, and the time from a point to its stop
    python -m benchmarks.listing      lists of 100,000 simulations, sorted and filtered, against the plain list
    python -m benchmarks.stall        latency of a small query beside requests and floods made to stall a process
    python -m benchmarks.sweep CURVES      sweeps by each sampler with and without pruning, on recorded curves
    python -m benchmarks.stopping CURVES   compute saved and regret of stop rules and sweeps on recorded curves
    python -m benchmarks.forecast CURVES   error and coverage of forecasts on recorded curves
    python -m benchmarks.queue        one plan, rounds of the planner and requests, behind up to 100,000 queued
    python -m benchmarks.replay TRACE ...  the scheduling policy on recorded traces of GPU clusters, in simulated time
    python -m benchmarks.ray          submit to first point on Ray, against the bare Ray Jobs API; many attempts
    python -m benchmarks.peers        the same work on an MLflow tracking server (`make bench-peers`)

A benchmark prints a table and writes `benchmarks/results/NAME.json`, a list of {benchmark, case, value, unit, floor,
ratio}. It is a measurement, not a test: the machine may be busy. Floor and service therefore alternate, medians
count, and CPU time is compared where both share the machine with their clients.
"""
