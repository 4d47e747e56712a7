"""What is pushed: the hub and its tails, broadcasts, shared execution, watch leases."""
