"""The handle: `simulations up | migrate | submit | demo | list | show | watch | logs | cancel | retry | ...`.

    app, machine_commands, token_commands   the commands and their options
    options, completion, group              what they have in common: options, what a shell completes, how they end
    errors                                  every way to end, with its exit code

    up                   the whole service on one machine       children, ports, signals   how it keeps processes
    migrate, tokens      what works on the database itself
    doctor, doctor_database   what is wrong with an installation
    submit, order_file   an order, typed or in YAML             arguments   durations, key=value pairs, ids
    browse, machines     what there is, as tables               tables      columns that give way
    change               cancel, drain, resume, delete
    watch, logs, waiting what goes on, live                     follow, resuming   subscriptions through cut connections
    curve, plot          the points, and how they are drawn

    server, requests     the API: its failures in sentences; what is asked of it
    documents, answers   GraphQL; what comes back, as values
    terminal, progress   text that is safe to show, durations in words; work that takes a while

A GraphQL client like any other: it starts processes and never imports them. Only `up`, `migrate`,
`doctor` and `token` use `db`.
"""
