"""Ended runs as rows: attempts, members, curves and summaries of simulations, by one statement.

A statement begins with the runs (`runs`: id, started_at, finished_at) and their points (`points`: id, metric, s, step,
batch, v, elapsed; s: 1, 2, 3 ... along a curve), goes on with `STORED`, and ends with a SELECT. For benchmarks, and for
tests (tests/support/swept.py).
"""

from __future__ import annotations

STORED = """
attempted AS (
    INSERT INTO attempts (simulation_id, number, assigned_at, started_at, ended_at, reason)
    SELECT id, 1, started_at, started_at, finished_at, 'COMPLETED' FROM runs
    RETURNING id, assigned_at, ended_at
), members AS (
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, cpus, memory_gib, gpus,
                         assigned_at, ended_at)
    SELECT id, 'h100-1', 24.48, 0.125, 'USD', 4, 32, 1, assigned_at, ended_at FROM attempted
), curves AS (
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT id, 1, batch, metric, array_agg(step ORDER BY s), array_agg(v ORDER BY s), array_agg(elapsed ORDER BY s)
    FROM points GROUP BY id, metric, batch
), summed AS (
    SELECT id, metric, count(*) AS n, min(step) AS first, max(step) AS last,
           (array_agg(v ORDER BY s DESC))[1] AS last_v, (array_agg(step ORDER BY v, s))[1] AS min_step, min(v) AS least,
           (array_agg(step ORDER BY v DESC, s))[1] AS max_step, max(v) AS greatest
    FROM points GROUP BY id, metric
), summaries AS (
    INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                         max_step, max_value)
    SELECT id, 1, metric, n, first, last, last_v, min_step, least, max_step, greatest FROM summed
), results AS (
    INSERT INTO results (simulation_id, metric, last_value, min_value, max_value)
    SELECT id, metric, last_v, least, greatest FROM summed
)
"""
