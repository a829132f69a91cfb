"""Figures from the operating system: cores, processor time and memory of a process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cores", "cores", "cpu_seconds", "family", "model", "pinned", "resident"]

_CPU_CLOCK = 2  # CPUCLOCK_SCHED of linux/posix-timers.h: what the scheduler has counted


class Cores(NamedTuple):
    """Where the two sides of a measurement run."""

    measured: int
    other: int

    @property
    def shared(self) -> bool:
        """Whether there is only one, so that the two disturb each other."""
        return self.measured == self.other


def cores() -> Cores:
    """The first and the last core that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on this core meanwhile; processes that are started then stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            children = (task / "children").read_text(encoding="ascii")
            found += [int(child) for child in children.split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of all its threads and of the processes that it started.

    It is what utime and stime of /proc count too, but in nanoseconds instead of hundredths of a
    second: the processor clock of each process (clock_getcpuclockid(3)).
    """
    return sum(time.clock_gettime(~one << 3 | _CPU_CLOCK) for one in family(pid))


def resident(pid: int) -> int:
    """Bytes of RAM that a process holds, with those that it started."""
    return sum(_resident(one) for one in family(pid))


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def model() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
