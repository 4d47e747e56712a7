"""Command line: `simulations up | migrate | submit | demo | list | show | watch | logs | cancel | retry | ...`.

    __main__           `simulations`, and `python -m cli`
    app                the tree of commands, in the order of --help
    service_commands   `up`, `doctor`, `migrate`
    submit_commands    `submit`, `demo`
    read_commands      `list`, `show`, `watch`, `logs`, `costs`, `plan`
    change_commands    `cancel`, `delete`, `tag`, `pause`, `resume`, `update`, `retry`
    machine_commands   `machines ...`
    project_commands   `projects ...`
    budget_commands    `budget ...`
    file_commands      `files ...`
    alert_commands     `alert ...`
    sweep_commands     `sweep ...`
    token_commands     `token ...`
    options            options and arguments that several commands have
    completion         candidates for shell completion: ids and names from the server
    shells             completion in zsh, bash and fish: scripts, quoting, installation
    group              exit of all commands, and the default command of a group
    errors             expected errors, with their exit codes

    up                 the whole service on one machine
    children           child processes: start, restart and stop
    memory             detection of out-of-memory kills
    ports              port selection, and the URLs of the service
    signals            Ctrl-C, SIGTERM and a closed terminal during `up`
    migrate            database migrations
    tokens             create, list and revoke tokens, directly in the database
    doctor             diagnosis of an installation
    doctor_database    diagnosis of its database
    doctor_clusters    diagnosis of its Ray clusters
    doctor_files       diagnosis of the bucket of its files

    submit             options as a CreateSimulationInput
    submission_file    `submit --file`: YAML, with the line of each mistake
    sweeps             sweeps: inputs, tables, progress, export to Optuna
    sweep_file         `sweep --file`: YAML in this service's words, W&B's and Optuna's
    search             parsing of `-p lr=log:1e-4..1e-1` and names of samplers
    stop_rules         parsing of `--stop` and `--objective`
    arguments          parsing of durations, key=value pairs, ids
    listing            sort keys and filters of simulations
    browse             lists and details, as tables or JSON
    alerts             alert targets: inputs, tables, the wait for a test message
    machines           machines, as tables
    plan               machines over time, as text
    costs              costs and budgets, as tables or CSV
    money              formatting of amounts and prices
    tables             tables that drop columns on a narrow terminal
    change             cancel, delete, tag, update, drain and resume, several at once
    watch              a curve, live
    logs               a log, live
    files              lists and downloads of stored files
    pack               packing of a directory of code
    packages           upload and download of packages
    waiting            `submit --wait`: the end, without the curve
    follow             the convergence subscription, with reconnection
    resuming           any subscription, with reconnection
    curve              received points of one simulation
    points             `curve`: all points, as CSV or JSON
    plot               plots in text

    server             address of the API, and its failures as sentences
    requests           queries and mutations, one function each
    documents          the GraphQL documents
    answers            models of the answers
    terminal           sanitised output, formatting of durations
    progress           spinner for slow work
    advice             advice on a frequent failure

An ordinary GraphQL client: it starts the service's processes and never imports them. Only `up`, `migrate`,
`doctor` and `token` use `db`; `server` reads the lock of the data directory through it.
"""
