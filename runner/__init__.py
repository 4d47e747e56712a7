"""The hands: engines that start work on a machine, and the supervisor that travels with the work.

    base         the protocol of an engine: discover, launch, probe, end
    local        the engine of this very host
    processes    who is alive: pid, start time, boot; and how everything of an attempt is found and killed
    supervisor   a package of the standard library only, run beside each simulation: it reads what the simulation
                 prints, reports it, obeys, and leaves nothing behind
    removal      removal of directories that simulations wrote into
    archive      the supervisor as one zip archive, named by its hash
    launches     the engine's side of the launcher: one warm process per host that forks supervisors
    demo         a built-in simulation, so that anyone can see a curve with no training code

The scheduler starts and forgets: a supervisor lives in its own session and reports to the API by itself, so that
nothing here has to stay up for a simulation to go on. What an engine must answer is only whether an attempt is still
alive, and it says DEAD not before nothing of it is left.

Plain values come in, plain values go out: this room knows neither the memory nor the API's types.
"""
