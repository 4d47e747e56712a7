"""What is pushed to subscribers.

hub                one LISTEN connection per process, and a shared tail per watched simulation
broadcast          one loop sends an event to all subscribers that wait at the same place
shared_execution   one execution and one encoding for all subscribers that get the same
watch_leases       records which attended simulations have a subscriber here
"""
