"""Capacity: the kernel's files under a folder of our own, and what fits into what they say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.capacity import (
    BARE_WORKER_MIB,
    LEAST_BODIES_MIB,
    bodies_mib,
    cpu_limit,
    fitting_by_memory,
    fitting_workers,
    memory_limit_mib,
    resident_mib,
    worker_mib,
)
from service.manifest import Cost

MIB = 2**20
CPUS = len(os.sched_getaffinity(0))
MEMINFO = {"proc/meminfo": "MemTotal:        8388608 kB\nMemFree:         1024 kB\n"}
V1 = {"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"}
V1_NO_LIMIT = 9223372036854771712
"""What cgroup v1 writes where there is no limit."""

MakeRoot = Callable[[dict[str, Any]], Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Write files of the kernel under a folder and return it."""

    def make(files: dict[str, Any]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path

    return make


def v2(path: str = "/") -> dict[str, str]:
    """A process in one cgroup of version 2."""
    return {"proc/self/cgroup": f"0::{path}"}


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        ({}, 8192),
        (v2(), 8192),
        (v2() | {"sys/fs/cgroup/memory.max": "max"}, 8192),
        (v2() | {"sys/fs/cgroup/memory.max": 512 * MIB}, 512),
        (v2() | {"sys/fs/cgroup/memory.max": 16384 * MIB}, 8192),
        (v2() | {"sys/fs/cgroup/memory.max": ""}, 8192),
        ({"sys/fs/cgroup/memory.max": 512 * MIB}, 512),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/memory.max": 256 * MIB}, 256),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/memory.max": 512 * MIB, "sys/fs/cgroup/a/memory.max": 256 * MIB}, 256),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": 256 * MIB}, 256),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/memory.max": 256 * MIB, "sys/fs/cgroup/a/memory.max": "max"}, 256),
        (v2("/gone/from/here") | {"sys/fs/cgroup/memory.max": 256 * MIB}, 256),
        (V1 | {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": 256 * MIB}, 256),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": 256 * MIB}, 256),
        (V1 | {"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": V1_NO_LIMIT}, 8192),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NO_LIMIT}, 8192),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": 256 * MIB}, 256),
    ],
    ids=[
        *("no cgroups", "v2 without files", "v2 unlimited", "v2", "v2 above the machine", "v2 empty file"),
        *("v2 without proc", "v2 nested", "v2 tighter parent", "v2 limit of the parent", "v2 unlimited parent"),
        *("v2 in a namespace", "v1", "v1 in a namespace", "v1 unlimited", "v1 unlimited in a namespace"),
        "v1 without proc",
    ],
)
def test_memory_is_the_tightest_limit(make_root: MakeRoot, files: dict[str, Any], mib: float) -> None:
    """Memory is the least of the machine's and of every cgroup's from this process's own up to the top."""
    assert memory_limit_mib(make_root(MEMINFO | files)) == mib


@pytest.mark.parametrize("meminfo", ["", "MemFree: 1024 kB"])
def test_memory_of_an_unknown_machine_is_the_cgroups(make_root: MakeRoot, meminfo: str) -> None:
    """Where the machine does not tell its memory, the cgroup's limit counts alone."""
    limits = {"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": 512 * MIB}
    assert memory_limit_mib(make_root(limits)) == 512


def test_memory_without_proc_is_unlimited(make_root: MakeRoot) -> None:
    """Where there is no /proc at all, as on macOS, the answer is a large number and no exception."""
    assert memory_limit_mib(make_root({})) >= 2**20


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, CPUS),
        (v2(), CPUS),
        (v2() | {"sys/fs/cgroup/cpu.max": "max 100000"}, CPUS),
        (v2() | {"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        (v2() | {"sys/fs/cgroup/cpu.max": "9900000 100000"}, CPUS),
        (v2() | {"sys/fs/cgroup/cpu.max": "50000"}, CPUS),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/cpu.max": "50000 100000", "sys/fs/cgroup/a/cpu.max": "25000 100000"}, 0.25),
        (v2("/a/b") | {"sys/fs/cgroup/a/b/cpu.max": "25000 100000", "sys/fs/cgroup/a/cpu.max": "max 100000"}, 0.25),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": 50000,
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": 100000,
            },
            0.5,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000, "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000}, 0.5),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1, "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000}, CPUS),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000}, CPUS),
    ],
    ids=[
        *("no cgroups", "v2 without files", "v2 unlimited", "v2", "v2 above the machine", "v2 without a period"),
        *("v2 tighter parent", "v2 unlimited parent", "v1", "v1 without proc", "v1 unlimited", "v1 without a period"),
    ],
)
def test_processors_are_the_tightest_limit(make_root: MakeRoot, files: dict[str, Any], cpus: float) -> None:
    """Processors are the least of those that this process may run on and of every cgroup's share."""
    assert cpu_limit(make_root(MEMINFO | files)) == cpus


@pytest.mark.parametrize("line", ["", "nonsense", "0::"])
def test_malformed_list_of_cgroups_is_passed_over(make_root: MakeRoot, line: str) -> None:
    """A list of cgroups that cannot be read leaves the limit at the top."""
    files = MEMINFO | {"proc/self/cgroup": line, "sys/fs/cgroup/memory.max": 512 * MIB}
    assert memory_limit_mib(make_root(files)) == 512


def test_this_machine_has_a_capacity() -> None:
    """The real files of this machine give some memory and some processor."""
    assert 0 < memory_limit_mib() < 2**40
    assert 0 < cpu_limit() <= CPUS


def cost(model_mib: float, process_mib: float) -> Cost:
    """What a model cost where it was packed."""
    return Cost(microseconds={"1": 100.0}, model_mib=model_mib, process_mib=process_mib)


@pytest.mark.parametrize(
    ("costs", "mib"),
    [
        ([], BARE_WORKER_MIB),
        ([cost(0, 0)], 1),
        ([cost(10, 160)], 160),
        ([cost(10, 160), cost(20, 150)], 150 + 10 + 20),
        ([cost(500, 700), cost(500, 650), cost(1, 151)], 200 + 500 + 500 + 1),
    ],
)
def test_worker_holds_every_model_on_the_largest_base(costs: list[Cost], mib: float) -> None:
    """A worker needs the largest base once, and every model."""
    assert worker_mib(iter(costs)) == mib


@pytest.mark.parametrize(
    ("cpus", "memory_mib", "each_mib", "workers"),
    [
        (4, 8192, 200, 4),
        (4, 1000, 200, 4),
        (4, 999, 200, 3),
        (4, 512, 200, 2),
        (4, 256, 200, 1),
        (4, 100, 200, 1),
        (0.5, 8192, 200, 1),
        (1.5, 8192, 200, 2),
        (64, 512, 120.5, 3),
    ],
)
def test_workers_fit_processors_and_memory(cpus: float, memory_mib: float, each_mib: float, workers: int) -> None:
    """There is one worker a processor, no more than fit into four fifths of the memory, and always one."""
    assert fitting_workers(cpus, memory_mib, each_mib) == workers


@pytest.mark.parametrize(("memory_mib", "each_mib", "workers"), [(512, 410, 0), (512, 409, 1), (512, 46.9, 8)])
def test_memory_holds_as_many_as_fit_into_its_share(memory_mib: float, each_mib: float, workers: int) -> None:
    """Whoever asks for the memory alone hears how many workers fit into four fifths of it, be it none."""
    assert fitting_by_memory(memory_mib, each_mib) == workers


@pytest.mark.parametrize(
    ("memory_mib", "workers", "each_mib", "mib"),
    [
        (512, 2, 200, 56),
        (512, 1, 200, 312),
        (8192, 4, 150.5, 2048 - 150.5),
        (512, 2, 240, LEAST_BODIES_MIB),
        (512, 2, 239, 17),
        (512, 2, 1000, LEAST_BODIES_MIB),
        (64, 64, 120, LEAST_BODIES_MIB),
    ],
)
def test_1_7_bodies_get_what_the_models_leave(memory_mib: float, workers: int, each_mib: float, mib: float) -> None:
    """Each worker's bodies get its share of the memory less its models, and always enough for one of 1 MiB."""
    assert bodies_mib(memory_mib, workers, each_mib) == mib


def test_1_7_models_and_bodies_of_all_workers_fit() -> None:
    """As many workers as are started, with their models and all that bodies may take, fit into the memory."""
    for memory_mib in range(256, 4096, 64):
        workers = fitting_workers(16, memory_mib, 170)
        assert workers * (170 + bodies_mib(memory_mib, workers, 170)) <= memory_mib


def test_resident_memory_grows_with_what_is_kept() -> None:
    """A process's memory is measured in MiB, and what it keeps is in it."""
    before = resident_mib()
    kept = b"x" * (64 * MIB)
    grown = resident_mib() - before
    assert 10 < before < 2**20
    assert 60 <= grown <= 80, len(kept)


def test_resident_memory_is_nothing_where_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no such file, a process measures nothing, and so nobody is replaced."""

    def refuse(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert resident_mib() == 0
