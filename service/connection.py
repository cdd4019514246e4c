"""What a worker knows of one client's connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from service.framing import Chunks, Head


@dataclass(frozen=True)
class Running:
    """A request in a thread: when it counts as stuck, and the memory that is set aside for it."""

    stuck_at: float
    reserved_bytes: int


class Connection:
    """One client's connection, and how far its current request has come."""

    def __init__(self, client: socket.socket, address: Any, server: Any) -> None:
        self.socket, self.address, self.server = client, address, server
        self.received = bytearray()
        self.outgoing = memoryview(b"")
        self.head: Head | None = None
        self.chunks: Chunks | None = None
        self.interest = 0
        self.reserved_bytes = 0
        self.deadline = 0.0
        self.overdue: Callable[[Connection], None] = lambda connection: None
        self.task: Future[tuple[bytes, bool]] | None = None
        self.active_at = time.monotonic()
        self.served_at = 0.0
        self.working = self.last = self.lingering = self.ended = self.gone = False

    @property
    def idle(self) -> bool:
        """Whether no request has begun on it."""
        return not (self.received or self.working or self.outgoing or self.lingering)
