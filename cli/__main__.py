"""Entry point of `simulations` and `python -m cli`: handles Ctrl-C from the first import on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from cli.app import run

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # an encoding without … prints ?
        run()
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # as cli.group.discard_half_made, which may not be imported yet
        sys.exit(130)


if __name__ == "__main__":
    main()
