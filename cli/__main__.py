"""Entry point of `simulations` and `python -m cli`: handles Ctrl-C from the first import on."""

from __future__ import annotations

import gc
import sys

COLLECT_AFTER = 20_000  # new objects: a collection after each 700, in the midst of the imports, was a sixth of a start


def main() -> None:
    """Run the command line."""
    gc.set_threshold(COLLECT_AFTER)
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
