"""What a worker asks of the kernel, the C library and the garbage collector, beyond what is usual."""

from __future__ import annotations

import gc
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL, addressof, c_char, create_string_buffer
from typing import Any

SO_ATTACH_FILTER = 26
DROP_SYN = [(0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
"""Classic BPF for a listening socket: load the TCP flags, keep SYN and ACK; SYN alone is dropped, all else passes.

Source: Linux Documentation/networking/filter.rst, read 2026-11-22.
"""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Source: man 3 mallopt, read 2026-11-22."""


PR_SET_PDEATHSIG = 1
"""Source: man 2 prctl, read 2026-11-22."""


def end_with_parent(sent: signal.Signals) -> None:
    """Have the kernel send this process a signal when the one that started it ends."""
    CDLL(None).prctl(PR_SET_PDEATHSIG, sent)


def tidy_memory() -> None:
    """Have the C library give large blocks back at once, and keep one heap for all threads but the first.

    By default each thread keeps a heap, and blocks of up to 32 MiB stay in it: the worst bodies leave twice as much
    behind (`python -m tests.faults.memory bodies`). A C library without `mallopt` is left as it is.
    """
    mallopt = getattr(CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)
        mallopt(M_MMAP_THRESHOLD, 4 * 2**20)


def settle_objects() -> None:
    """Have the garbage collector pass over every object that lives now, because it is here to stay.

    A full collection looks at each of them: 140,000 after scikit-learn was imported, which stops every thread for 70 ms
    and makes a worker's own copy of what it shares with the master. Reference counts go on freeing them; only a cycle
    that is given up later stays until the worker ends.

    Source: docs.python.org/3/library/gc.html#gc.freeze, read 2026-11-22.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector away while modules are imported, and have it pass over what they made ever after.

    What they make stays, but it would be looked at again and again: a seventh of the time that a start takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def drop_new_connections(listener: Any) -> None:
    """Have the kernel pass over packets that would begin a connection; their clients try again, elsewhere or later.

    Where the kernel does not let us, a connection that begins in the listener's last instant may be reset.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_SYN)
    buffer = create_string_buffer(program, len(program))
    header = struct.pack("HL", len(DROP_SYN), addressof((c_char * len(program)).from_buffer(buffer)))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
