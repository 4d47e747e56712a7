"""The supervisor: travels with one attempt of a simulation and sees it through.

    assignment   what it is given: config.json and token of its engine, the order of the service
    run          the whole: hello, the child from start to end, delivery
    child        start the child; find, reap and kill all that descends from it
    lines        pipes cut into lines, points told from log, the log's limits
    curve        which numbers of a line are points, and for which step
    spool        what waits to be reported: numbered batches in memory and in files
    reporter     the thread that sends the spool and keeps the answers
    service      hello and reports over HTTP
    complaints   supervisor.log, its own log
    launcher     one warm process per host that forks supervisors, and kills what a dead one leaves
    __main__     the command: `python ARCHIVE DIRECTORY`

It says hello to the service, starts the simulation that the order names, reads what that prints, reports it in
numbered batches, obeys STOP and OVER, enforces the time limit, and leaves no process behind.

It uses the standard library only, of Python 3.9 or newer, because it goes to machines that have only Python. It travels
as one zip archive that `runner.archive` builds.

How it fails. Only a reply that names this attempt counts; anything else (no reply, an error page, another
installation) means unreachable: it keeps spooling, to memory and then to files, and tries again. With the disk and the
memory set aside both full it stops reading, and the simulation waits in its `print`: points are never lost. Logs are:
above a rate and a total they are dropped and counted. If this process is killed, its engine finds what is left by
the recorded identities (`supervisor.json`, `child.json`) and by the mark in the environment.

DIRECTORY holds `config.json` and `token`, both written by the engine; `spool/` and `work/` are made here.
"""
