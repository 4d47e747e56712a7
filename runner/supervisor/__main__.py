"""The command `python -I -S supervisor.pyz DIRECTORY`: see the attempt of that directory through."""

from __future__ import annotations

import sys
from pathlib import Path

from runner.supervisor.run import supervise


def main() -> int:
    return supervise(Path(sys.argv[1]).resolve())


if __name__ == "__main__":
    sys.exit(main())
