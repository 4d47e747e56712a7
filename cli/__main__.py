"""`simulations`, and `python -m cli`: Ctrl-C ends it in peace from its first import on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from cli.app import run

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that knows no … gets a ?
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
