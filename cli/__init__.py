"""The handle: `simulations up | migrate | submit | list | show | watch | cancel | retry`.

    app        the commands, and what happens to errors        errors      every way to end, with its exit code
    up         the whole service on one machine                children    processes: started, watched, restarted
    migrate    the tables, brought up to date                  ports       addresses, and whether they are free
    submit     queue a simulation                              arguments   durations, key=value pairs, ids
    browse     list, show                                      server      the API: documents, answers, errors
    change     cancel, retry                                   answers     what the API says, as values
    watch      the live curve                                  follow      the subscription, resumed when it is cut
    terminal   text that is safe to show, durations in words   curve, plot the points, and how they are drawn

A GraphQL client like any other: it starts processes and never imports them. Only `up` and `migrate` use `db`.
"""
