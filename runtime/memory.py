"""The memory that this process may use."""

import os
from contextlib import suppress
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container its limit, in cgroups of version 2 and 1; "max" or a huge number: none."""


def memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)
