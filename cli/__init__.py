"""The handle: `simulations up | migrate | submit | demo | list | show | watch | logs | cancel | retry | ...`.

    __main__           `simulations`, and `python -m cli`
    app                the commands and their options
    machine_commands   `machines ...`
    token_commands     `token ...`
    options            options and arguments that several commands have
    completion         candidates for a shell's completion: ids and names, asked of the server
    shells             completion in zsh, bash and fish: scripts, quoting, installation
    group              how all commands end, and what a group does without a command
    errors             every way to end, with its exit code

    up                 the whole service on one machine
    children           programs that are started, watched, restarted and ended together
    memory             whether the kernel killed for want of memory
    ports              a free port, and the addresses of the service
    signals            Ctrl-C, SIGTERM and a closed terminal during `up`
    migrate            bring the tables up to date
    tokens             make, list and revoke tokens, in the database itself
    doctor             what is wrong with an installation
    doctor_database    the same, of its database

    submit             options as a CreateSimulationInput
    submission_file    `submit --file`: YAML, with the line of each mistake
    arguments          durations, key=value pairs, ids
    browse             lists and details, as tables or JSON
    machines           machines, as tables
    tables             columns that give way on a narrow terminal
    change             cancel, delete and the like, several at once
    watch              a curve, live
    logs               a log, live
    waiting            `submit --wait`: the end, without the curve
    follow             the convergence subscription, through cut connections
    resuming           any subscription, through cut connections
    curve              the points of one simulation as they arrive
    plot               a curve, drawn in characters

    server             the API: its address, and its failures in sentences
    requests           what is asked of the API, one function each
    documents          the GraphQL documents
    answers            what comes back, as values
    terminal           text that is safe to show, durations in words
    progress           work that takes a while
    advice             what may mend a failure that many users meet

A GraphQL client like any other: it starts processes and never imports them. Only `up`, `migrate`,
`doctor` and `token` use `db`; `server` asks it who holds the data directory.
"""
