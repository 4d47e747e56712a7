"""What is checked about an operation before it runs: limits, complexity, documents."""
