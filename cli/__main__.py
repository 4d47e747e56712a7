"""`python -m cli` is `simulations`."""

from cli.app import main

main()
