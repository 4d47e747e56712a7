"""Memory and network of the host, or of the container that the supervisor runs in, from /proc and cgroup files."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")  # of version 2: a container sees its own cgroup there


def memory_percent(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> float | None:
    """Percent of the memory in use: of the cgroup's limit if there is one, else of the host. None: unknown."""
    try:
        limit = (cgroups / "memory.max").read_text().strip()
        if limit != "max":
            fields = _numbers((cgroups / "memory.stat").read_text())
            used = int((cgroups / "memory.current").read_text()) - fields.get("inactive_file", 0)  # freed when needed
            return 100 * max(used, 0) / int(limit)
    except (OSError, ValueError, ZeroDivisionError):
        pass  # version 1, or the root, which has no limit
    try:
        fields = _numbers((proc / "meminfo").read_text())
        return 100 * (1 - fields["MemAvailable:"] / fields["MemTotal:"])
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return None


def network_bytes(pid: int, proc: Path = Path("/proc")) -> tuple[int, int] | None:
    """Bytes received and sent by all interfaces but loopback, in the network namespace of a process. None: unknown."""
    received = sent = 0
    try:
        for line in (proc / str(pid) / "net" / "dev").read_text().splitlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                fields = counters.split()
                received += int(fields[0])
                sent += int(fields[8])
    except (OSError, ValueError, IndexError):
        return None
    return received, sent


def _numbers(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {words[0]: int(words[1]) for words in map(str.split, text.splitlines()) if len(words) > 1}
