"""The front door: speaks GraphQL over HTTP and WebSocket to clients and to supervisors; N copies of it may run.

    app         create_app: the Starlette application, wired top to bottom      __main__   serves it
    schema      Query, Mutation, Subscription, put together                     schema.graphql  what is promised
    simulation, machine, project     one noun each: its types, its inputs, its mutations
    convergence, log                 what is streamed
    supervision                      helloAttempt and reportAttempt: the supervisors' side
    hub         one LISTEN connection and a shared tail per simulation: what wakes subscribers
    where, headers          which Host and Origin are answered; what browsers are told to refuse
    http_wire, wire         connections as bytes: what is never finished, never read, or too large ends
    entry, login, cookie    who comes in, by a token or by a browser's cookie; access  who may do what
    doors       what is held open with a token, and ends with it
    rates       how often somebody may fail to log in, or submit
    context     what a resolver is given: the session factory, the hub, who asks
    errors      the closed family of errors that clients see; everything else is masked
    inputs      what is checked before anything is stored
    pages       /healthz, /readyz, and the way to the explorer

A root resolver or a mutation opens its own session and owns its transaction; a subscription holds none across a
yield. Nothing here decides between machines or starts a process.
"""
