"""One module per noun of the schema: its GraphQL type, its inputs, and thin resolvers.

    simulation            simulations: the type, its lists
    listing               sort orders and filters of lists of simulations
    names                 names of metrics and parameters, for forms
    simulation_inputs     inputs of their mutations
    simulation_mutations  update, cancel, pause, resume, delete
    submission            create, one or many, and retry
    place                 what is directly before a simulation in the queue
    dependency            what a simulation runs after, and what runs after it
    simulation_changes    the subscription simulationChanged
    sweep                 sweeps and their trials: queries, mutations
    sweep_inputs          inputs of sweeps, and what is judged of several values together
    attempt               executions of a simulation on a machine
    event                 entries of an object's history
    convergence           the convergence subscription: points by cursor, live
    curve                 curves of a metric, downsampled to a number of points
    stopping              objective, stop rules and their evidence, as they are read
    stop_rules            objective and stop rules as they are asked for
    file                  stored files, and where their bytes are
    package               the package of code that a simulation starts in
    forecast              forecast of a metric, and what holds about a target
    log                   log lines: pages, and the logs subscription
    metric                summaries of a metric: last, best, which way is better
    notice                output that was nearly points, or was dropped
    checkpoint            when its newest checkpoint was written, and where it is
    source                what its newest attempt ran: git commit, host, Python, packages
    cost                  the cost of a simulation so far
    costs                 where the money went, in groups
    budget                budgets and their accounts
    machine               machines: queries, mutations, machineChanged
    project               projects
    plan                  the newest plan: what holds the machines, and what is reserved
    overview              queued and running simulations, and their cost per hour
    alert                 alert targets and their deliveries: queries, mutations
    token                 API tokens, and the viewer
    supervision           helloAttempt and reportAttempt: the supervisors' side
    supervisor_documents  the short way of the two documents with which supervisors ask for them
    enums                 the enums of db and policy, with their descriptions
    inputs                validation of inputs before anything is stored
    scalars               Step, PointColumns, Decimal
    cursors               positions in a log, opaque to clients
    ids                   public ids, numbers and names of simulations, to numbers
    parameters            parameters by path
    naming                a simulation's default name, derived from its entrypoint
    variables             names of environment variables, and the variables of parameters
    runtime_env           Ray's runtime environment: what is handed through, and what is refused
    pages                 connections: edges, nodes, pageInfo
    user_errors           why a mutation changed nothing, as data

These modules may import each other: the nouns of a GraphQL schema refer to each other.
"""
