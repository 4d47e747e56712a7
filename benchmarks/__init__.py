"""What the performance claims are measured with: each number beside a floor measured in the same run.

    python -m benchmarks              all but peers, one after the other, and what was reached (`make bench`)
    python -m benchmarks.dispatch     how many short simulations a second, beside bare interpreter starts
    python -m benchmarks.latency      how long from submit to RUNNING, and from a printed line to a subscriber
    python -m benchmarks.fanout       what a delivery to one of many subscribers costs, against a bare loop of sends
    python -m benchmarks.ingest       what taking in a batch costs, against writing its rows with asyncpg
    python -m benchmarks.curve        a million points read back as a thousand, against reading the rows
    python -m benchmarks.memory       what subscribers cost in memory, those that wait and those that never read
    python -m benchmarks.overhead     what limits, prices and rights cost a small query, against the schema without them
    python -m benchmarks.stall        what a small query waits beside requests and floods made to stall a process
    python -m benchmarks.peers        the same work done by an MLflow tracking server (`make bench-peers`)

A benchmark prints a table and writes `benchmarks/results/NAME.json`, a list of {benchmark, case, value, unit, floor,
ratio}. It is a measurement, never a test: the machine may be busy with something else. So floor and service take
turns, medians count, and where both share the machine with their clients it is CPU time that is compared.
"""
