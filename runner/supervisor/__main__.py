"""Command line of the archive: `python -I -S ARCHIVE DIRECTORY` runs the supervisor of one attempt.

`python -I -S ARCHIVE --launcher DIRECTORY KEY` runs the launcher, which forks supervisors on request, and
`python -I -S ARCHIVE --job` the supervisor of a cluster's job.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runner.supervisor import job, launcher
from runner.supervisor.child import record
from runner.supervisor.run import supervise


def main() -> int:
    if sys.argv[1] == "--launcher":
        return launcher.main(Path(sys.argv[2]), sys.argv[3])
    if sys.argv[1] == "--job":
        return job.main()
    directory = Path(sys.argv[1]).resolve()
    record(directory / "supervisor.json", os.getpid())
    return supervise(directory)


if __name__ == "__main__":
    sys.exit(main())
