"""Live updates: everything that is pushed to subscribers.

hub                the tails of this process, and the fan-out of hints to them
tail               the end of a curve or a log, read once for all its subscribers
changes            which simulations or machines changed since a subscriber looked
notifications      hints from and to other processes: LISTEN, NOTIFY, and timers in their place
process            wires these, and runs them
broadcast          one loop sends an event to all subscribers that wait at the same place
shared_execution   one execution and one encoding for all subscribers that get the same
turns              limits the fields that are executed in one turn of the event loop
forecasts          forecasts of curves, in a thread, kept while they hold
importances        importance of the parameters of sweeps, kept while they hold
background         work that no client waits for
watch_leases       records which attended simulations have a subscriber here
"""
