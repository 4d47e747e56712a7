"""Supervisor process: starts one attempt of a simulation, reports its output and reaps its processes.

    assignment   input: config.json from the engine, the order from the service
    run          main loop: hello, the child from start to end, delivery
    child        start the child; find, reap and kill its descendants
    lines        lines of the pipes, separation of points and log, the log's limits
    terminal     escape sequences and carriage returns, carried out
    readers      what a line means: objects, forms of text, the user's patterns
    curve        which numbers of a reading are points, and for which step
    notices      what was nearly a point or was dropped, counted
    sources      package: points that the program's own trackers record (MLflow, W&B, TensorBoard)
    provenance   source of an attempt: git commit, host, Python and its packages, recorded once
    checkpoints  time of the newest file in the checkpoint directory
    system       package: cpu, memory, disk, network and GPUs in use, sampled
    files        package: checkpoints and outputs, kept in the service's store and brought to the next machine
    spool        undelivered output: numbered batches in memory and in files
    reporter     thread that sends the spool and keeps the answers
    service      hello and reports over HTTP
    wire         the HTTP connection
    meeting      address and port by which the members of a gang find each other
    complaints   the supervisor's log, supervisor.log
    launcher     one warm process per host that forks supervisors, and kills what dead ones leave
    job          the supervisor as a job of a cluster: makes its directory, forks, and guards the fork
    __main__     the command: `python ARCHIVE DIRECTORY`

A supervisor says hello to the service, starts the simulation that the order names, reads its output, reports the output
in numbered batches, obeys STOP and OVER, enforces the time limit, and leaves no process behind.

It uses the standard library of Python 3.9 or newer only, because a machine may have nothing but Python. It ships as one
zip archive, built by `runner.archive`.

Failures. Only a reply with this attempt's id counts; anything else (no reply, an error page, another installation's
reply) means that the service is unreachable: the supervisor keeps spooling, to memory and then to files, and tries
again. With the disk and the reserved memory both full it stops reading, and the simulation blocks in its `print`:
points are never lost. Logs are lossy: above a rate and a total they are dropped and counted. If the supervisor is
killed, its engine finds the processes left by the recorded identities (the child's is appended to `config.json`) and by
the mark in the environment.

DIRECTORY holds `config.json`, written by the engine; the files of batches and `work/` are made here.
"""
