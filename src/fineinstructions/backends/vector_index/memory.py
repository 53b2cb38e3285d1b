"""Is there memory enough? Said before the work begins, in one line, instead of by the kernel's killer in the middle.

In: what is about to be needed. Out: nothing, or a `ConfigError`. The decision to question: needs are estimated from
sizes alone, each process asks for itself, and where the system does not tell what is free, nothing is refused. So what
passes may still fail; what is refused could not have worked.
"""

import contextlib
from pathlib import Path

from fineinstructions.errors import ConfigError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Memory that can be had without swapping.

    That is what the system has left, or what the limit of a container leaves (a control group of version 2 that is the
    root here) where it is less; its page cache does not count as used. A job's limit further down is not seen.

    Returns:
        Bytes; ``None`` where the system does not tell.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) << 10)
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
        found.append(limit - used + cached)
    return max(0, min(found)) if found else None


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse what does not fit.

    Args:
        needed: Bytes.
        what: What needs them, as the subject of a sentence.
        remedy: What to do about it.

    Raises:
        ConfigError: If less is free.
    """
    free = available_bytes()
    if free is not None and free < needed:
        raise ConfigError(f"{what} needs about {needed >> 20:,} MiB of memory, {free >> 20:,} MiB are free; {remedy}")
