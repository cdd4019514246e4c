"""How much machine there is, and how many workers fit into it. Knows files of the kernel, and no setting."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from service.manifest import Cost

MIB = 2**20
UNLIMITED_BYTES = 2**60
"""cgroup v1 writes a number near 2**63 where there is no limit."""
MEMORY_SHARE = 0.8
"""The part of the memory that workers may fill; the rest is for bodies, answers and gunicorn's master."""
WATERMARK = 0.9
"""The part of the memory that, shared out evenly, a worker may fill before it is replaced."""
LEAST_BODIES_MIB = 16.0
"""What requests get where the models leave nothing; a body of 1 MiB still fits."""
LEAST_WORKER_MIB = 1.0
"""No worker needs less, whatever a manifest says."""
BARE_WORKER_MIB = 120.0
"""A worker that serves nothing yet."""


def memory_limit_mib(root: Path = Path("/")) -> float:
    """Return the least of the machine's memory and the limits of the cgroups that this process is in, in MiB."""
    limits = [_machine_bytes(root), *_memory_limits(root)]
    return min(limits) / MIB


def cpu_limit(root: Path = Path("/")) -> float:
    """Return how many processors this process may use; a share of one is a fraction."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(usable), *_cpu_limits(root)])


def resident_mib() -> float:
    """Return this process's resident memory in MiB; 0 where the kernel does not tell."""
    with suppress(OSError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB
    return 0.0


def worker_mib(costs: Iterable[Cost]) -> float:
    """Return what one worker that serves all these models needs: the largest base, and every model."""
    known = list(costs)
    base = max((cost.process_mib - cost.model_mib for cost in known), default=BARE_WORKER_MIB)
    return max(base + sum(cost.model_mib for cost in known), LEAST_WORKER_MIB)


def bodies_mib(memory_mib: float, workers: int, each_mib: float) -> float:
    """Return how much memory each worker may give to requests at once: its share of what the models leave."""
    return max(memory_mib / workers - each_mib, LEAST_BODIES_MIB)


def fitting_workers(cpus: float, memory_mib: float, each_mib: float) -> int:
    """Return how many workers to run: one a processor, but no more than fit into the memory, and at least one."""
    return max(1, min(math.ceil(cpus), fitting_by_memory(memory_mib, each_mib)))


def fitting_by_memory(memory_mib: float, each_mib: float) -> int:
    """Return how many workers the memory holds with some to spare; 0 if not even one."""
    return int(memory_mib * MEMORY_SHARE / each_mib)


def _machine_bytes(root: Path) -> int:
    with suppress(OSError):  # not Linux
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                return int(value.split()[0]) * 1024
    return UNLIMITED_BYTES


def _memory_limits(root: Path) -> Iterator[int]:
    for path in [*_cgroups(root, "", "memory.max"), *_cgroups(root, "memory", "memory.limit_in_bytes")]:
        with suppress(OSError, ValueError):  # no such file here, or "max"
            limit = int(path.read_text())
            if limit < UNLIMITED_BYTES:
                yield limit


def _cpu_limits(root: Path) -> Iterator[float]:
    for path in _cgroups(root, "", "cpu.max"):
        with suppress(OSError, ValueError):
            quota, period = path.read_text().split()
            yield int(quota) / int(period)
    for path in _cgroups(root, "cpu", "cpu.cfs_quota_us"):
        with suppress(OSError, ValueError):
            quota_us, period_us = int(path.read_text()), int(path.with_name("cpu.cfs_period_us").read_text())
            if quota_us > 0:
                yield quota_us / period_us


def _cgroups(root: Path, controller: str, file: str) -> Iterator[Path]:
    """Walk from this process's cgroup up to the mount's top; inside a container the top is the container itself."""
    mount = root / "sys/fs/cgroup" / controller
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if (controller or None) in (controllers.split(",") if controllers else [None]):
                folder = Path(inside.lstrip("/"))
                for part in (folder, *folder.parents):
                    yield mount / part / file
                return
    yield mount / file
