"""What the performance claims are measured with: each number beside a floor measured in the same run.

    python -m benchmarks.latency      how long from submit to RUNNING, and from a printed line to a subscriber
    python -m benchmarks.fanout       what a delivery to one of many subscribers costs, against a bare loop of sends
    python -m benchmarks.curve        a million points read back as a thousand, against reading the rows

A benchmark prints a table and writes `benchmarks/results/NAME.json`, a list of {benchmark, case, value, unit, floor,
ratio}. It is a measurement, never a test: the machine may be busy with something else.
"""
