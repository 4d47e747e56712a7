"""One module per noun of the schema: its GraphQL type, its inputs, and thin resolvers.

    simulation    simulations, attempts and events: queries, mutations, simulationChanged
    convergence   the convergence subscription: points by cursor, live
    curve         a metric read back, thinned to what a screen can show
    log           log lines: pages, and the logs subscription
    metric        what is known of a metric: last, best, which way is better
    cost          what a simulation has cost so far
    machine       machines: queries, mutations, machineChanged
    project       projects
    overview      what is queued and running, and what it costs per hour
    token         API tokens, and the viewer
    supervision   helloAttempt and reportAttempt: the supervisors' side
    enums         the enums of db and policy, with their descriptions
    inputs        what is checked of an input before anything is stored
    scalars       Step, PointColumns, Decimal
    cursors       positions in a log, as clients get them
    ids           public ids to numbers
    naming        a simulation's name, made from its entrypoint
    variables     names of environment variables, and the variables of parameters
    pages         the shape of connections: edges, nodes, pageInfo
    user_errors   why a mutation did nothing, as data

These modules may import each other: the nouns of a GraphQL schema refer to each other.
"""
