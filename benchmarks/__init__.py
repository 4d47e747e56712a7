"""What the performance claims are measured with: each number beside a floor measured in the same run.

    python -m benchmarks.latency      how long from submit to RUNNING, and from a printed line to a subscriber

A benchmark prints a table and writes `benchmarks/results/NAME.json`, a list of {benchmark, case, value, unit, floor,
ratio}. It is a measurement, never a test: the machine may be busy with something else.
"""
