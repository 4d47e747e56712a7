"""How much is done of what has no end of its own: little by `make test`, more by `make chaos`, with the same code.

Each is a variable of the environment. What is small here finds what is broken outright; what is rare is for the long
form to find, which is given a seed of its own each time.
"""

from __future__ import annotations

import os

CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))  # of kill -9 at random
CHAOS_SIMULATIONS = int(os.environ.get("CHAOS_SIMULATIONS", "50"))
KILL_PASSES = int(os.environ.get("KILL_PASSES", "1"))  # over all cells of the kill matrix
STATEFUL_RUNS = int(os.environ.get("STATEFUL_RUNS", "10"))  # of each model, each of up to 40 steps
LOAD_SIMULATIONS = int(os.environ.get("LOAD_SIMULATIONS", "200"))  # submitted at once, and shown on one page
SWEEP_TRIALS = int(os.environ.get("SWEEP_TRIALS", "9"))  # of a sweep through which everything is killed
SWEEP_SEEDS = int(os.environ.get("SWEEP_SEEDS", "1"))  # sweeps; more than one: of the digits example, not of a stand-in
POLICY_PLANS = int(os.environ.get("POLICY_PLANS", "30"))  # generated for each property of a plan, or five times that
QUEUE_LENGTH = int(os.environ.get("QUEUE_LENGTH", "2000"))  # simulations that can't run, before all others
FUZZ_OPERATIONS = int(os.environ.get("FUZZ_OPERATIONS", "60"))  # of each kind, about
FUZZ_IS_NEW = "FUZZ_OPERATIONS" in os.environ  # other operations each time, not the same ones
