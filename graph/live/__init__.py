"""What is pushed to subscribers.

hub                one LISTEN connection per process, and a shared tail per watched simulation
broadcast          one loop sends an event to all subscribers that wait at the same place
shared_execution   one execution and one encoding for all subscribers that get the same
turns              how many fields are executed in a turn of the event loop, before others have theirs
watch_leases       records which attended simulations have a subscriber here
"""
