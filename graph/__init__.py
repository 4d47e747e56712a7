"""The API: GraphQL over HTTP, WebSocket and server-sent events, for people and for supervisors. N processes may run.

One import-linter contract orders the modules; each imports from its own layer and from the layers below:

    __main__    `python -m graph`: check the database, then serve
    app         create_app: the Starlette application, wired top to bottom
    server      uvicorn's configuration, and a shutdown that lets streams end
    export      print the schema, for graph/schema.graphql (what clients are promised)
    http        endpoints and protocols: GraphQL, SSE, sessions, dashboard files, health, /metrics
    schema      Query, Mutation and Subscription, put together
    types       one module per noun of the schema: thin resolvers, inputs, enums
    operation   what is checked about an operation: limits, complexity, permissions, documents
    context     what a resolver is given: session factory, hub, viewer, loaders
    auth        who makes a request: tokens and cookies become one Viewer
    live        what is pushed: hub, tails, broadcast, shared execution, watch leases
    errors      the closed family of errors that clients see; all others are masked
    store       where pieces of stored files lie: a directory, a bucket
    metrics     counters of one process, for /metrics
    wire        connections as bytes: overrides of uvicorn and websockets

A root resolver or a mutation opens its own session and owns its transaction; a subscription holds none across a
yield. Nothing here decides between machines or starts a process.
"""
