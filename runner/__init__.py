"""Engines that start simulations on a machine, and the supervisor that runs beside each simulation.

    base         the engine protocol: discover, launch, probe, end
    local        the engine of the local host
    ray          the engine of a Ray cluster: its nodes are machines, a member is a job
    processes    process identity (pid, start time, boot id); finding and killing an attempt's processes
    supervisor   one process beside each simulation, standard library only: reads the simulation's output, reports
                 it to the API, carries out stops, and leaves no process behind
    removal      removal of directories that simulations wrote into
    archive      the supervisor as one zip archive, named by its hash
    launches     the engine's side of the launcher: one warm process per host that forks supervisors
    demo         a built-in simulation that prints a convergence curve, without training code

A supervisor lives in its own session and reports to the API by itself, so a simulation goes on while the scheduler is
down. An engine has to answer one question: is a member still alive? It returns DEAD only after no process of the
member is left.

Arguments and results are plain values: this package imports neither `db` nor the API's types.
"""
