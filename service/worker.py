"""The gunicorn worker: an event loop that reads whole requests, and threads that only compute.

Stock gthread gives a thread to a connection that has sent nothing, and resets requests that it has accepted when it is
told to end. Here a thread is given a request whose every byte has arrived, and gives back bytes; the loop alone touches
sockets, so no slow client can hold a thread. What costs less than to hand it over, the loop answers itself. On SIGTERM
it goes on answering, with `Connection: close`, until nobody asks.

What it leans on in gunicorn is named in `gunicorn_check`.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any

from gunicorn.workers.base import Worker

from service.answer import Answers, problem
from service.board import Board
from service.capacity import resident_mib
from service.catalogue import Catalogue
from service.cheap import CheapModels, path_of
from service.connection import Connection, Running
from service.errors import (
    Draining,
    InsufficientMemory,
    InvalidHeader,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    ServiceError,
)
from service.framing import Chunks, Head, read_head
from service.kernel import drop_new_connections, tidy_memory
from service.settings import read_settings
from service.store import Store

HEAD_S = 10.0
BODY_S = 30.0
WRITE_S = 30.0
LINGER_S = 2.0
"""How long a connection is read on after its last answer, so that no reset cuts the answer off."""
IDLE_GRACE_S = 1.0
"""How long an ending worker waits on a kept-alive connection for a request that may be on its way."""
WORD_S = 1.0
"""How long a worker that somebody told to end serves on, for the master's word whether the whole service ends.

A platform may send SIGTERM to every process at once, and the worker may hear it first.
"""
EXIT_MARGIN_S = 3.0
MEASURE_S = 2.0
"""How often a worker looks at its own memory."""
GROWTH = 1.5
"""A worker is replaced only if it has grown by this factor since it loaded its models: the next is no smaller."""
SYN_SETTLE_S = 0.05
ACCEPT_PAUSE_S = 0.001
YIELD_S = 0.05
"""How long a worker with more than its share leaves a new connection to the others."""
GENEROUS_S = 0.1
"""How long it then takes every one, for the others may be unable to."""
TURN_S = 0.01
"""How long one turn serves those who are ready, and how long it sends answers; then it looks who else is.

A step takes microseconds, but milliseconds beside threads that compute: each system call gives the interpreter away.
"""
ALONE_S = 0.5
"""How long a computation waits for another, while the loop is behind: beside one it catches up, beside four not."""
SWITCH_S = 0.001
"""How long a computing thread may keep the interpreter from the loop, which asks for it several times a request."""
RECEIVE_BYTES = 256 * 1024
FRAMING_BYTES = 64 * 1024
"""What a chunked body of the largest size may take in framing."""
BODY_GROWTH = 16
"""What a body larger than `FRAMING_BYTES` may grow to while it is decoded and predicted, as a multiple of its size.

The worst of some fifty hostile bodies grew by 14.5, but for CSV of a thousand columns, which grew by 24.6
(`python -m bench.decoders growth service`, 2026-11-23).
"""
ASKING = (b"GET ", b"HEAD ")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

board = Board()
"""Made once in gunicorn's master, which imports this module before it forks."""


def _precedence(ready: tuple[selectors.SelectorKey, int]) -> float:
    """Who is served first: what wakes the loop, then who connects, then who has not been served for longest."""
    data = ready[0].data
    return data.served_at if isinstance(data, Connection) else -2.0 if data is None else -1.0


class AnyportWorker(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """Reads in an event loop, computes in threads, drains without loss."""

    def init_process(self) -> None:
        """Make what a worker needs after the fork, and run."""
        sys.setswitchinterval(SWITCH_S)
        tidy_memory()
        self.settings = read_settings()
        self.selector = selectors.DefaultSelector()
        self.pool = ThreadPoolExecutor(self.cfg.threads)
        self.alone, self.behind = Lock(), False
        self.finished: deque[tuple[Connection, Future[tuple[bytes, bool]]]] = deque()
        self.wake = os.pipe()
        os.set_blocking(self.wake[0], False)
        os.set_blocking(self.wake[1], False)
        self.connections: set[Connection] = set()
        self.pipelined: deque[Connection] = deque()
        self.running: dict[Future[tuple[bytes, bool]], Running] = {}
        self.reserved_bytes = 0
        self.accepting = False
        self.accept_at = self.yields_since = self.generous_until = 0.0
        self.accepted = False
        self.expire_at = 0.0
        self.catalogue: Catalogue | None = None
        self.cheap = CheapModels(None)
        self.answering = 0
        self.complete = self.retired = self.told = False
        self.tired = ""
        self.rested_mib = 0.0
        self.measure_at = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve until told to end, then drain."""
        self.max_body_bytes = self.settings.max_body_bytes
        for descriptor in (self.PIPE[0], self.wake[0]):
            self.selector.register(descriptor, READ, None)
        for listener in self.sockets:
            listener.setblocking(False)
        self.addresses = {listener: listener.getsockname() for listener in self.sockets}
        self._count()
        self.answers = Answers(self.wsgi, self.cfg)
        serving = self.wsgi.extensions["anyport"]
        self.keeper, self.health_paths = serving.keeper, {path.encode() for path in serving.health_paths}
        self.keeper.follow(None if board.spare is None else Store(board.spare), self._wake_up)
        while self.alive and not board.stopping and self.ppid == os.getppid():
            self._serve(0.5)
        self.alive: bool = False
        self._drain()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Note that somebody else ends this worker."""
        self.told = True
        super().handle_exit(sig, frame)

    # Connections

    def _serve(self, longest_s: float) -> None:
        """Take one turn in which new connections are welcome."""
        self._accept_from_now_on(self._may_accept())
        self._turn(longest_s)

    def _may_accept(self) -> bool:
        now = time.monotonic()
        if now < self.accept_at or len(self.connections) >= self.cfg.worker_connections:
            return False
        if not self.complete and not board.may_accept(self.answering):
            return False  # it is for a worker that has more models loaded
        return not self._yields(now)

    def _yields(self, now: float) -> bool:
        """Whether the next connection is for another worker, which has fewer."""
        if not self.accepted or now < self.generous_until:
            return False
        if not board.over_share(len(self.connections), self.answering):
            self.accepted, self.yields_since = False, 0.0
            return False
        self.yields_since = self.yields_since or now
        if now - self.yields_since >= YIELD_S:
            self.generous_until, self.yields_since = now + GENEROUS_S, 0.0
            return False
        self.accept_at = now + ACCEPT_PAUSE_S
        return True

    def _accept_from_now_on(self, wanted: bool) -> None:
        if wanted == self.accepting:
            return
        for listener in self.sockets:
            if wanted:
                self.selector.register(listener, READ, listener)
            else:
                self.selector.unregister(listener)
        self.accepting = wanted

    def _accept_waiting(self, until: float) -> None:
        for listener in self.sockets:
            while self._may_accept() and self._accept(listener) and time.monotonic() < until:
                pass

    def _accept(self, listener: Any) -> bool:
        """Accept one connection; False if there is none."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError | InterruptedError | ConnectionAbortedError):
                self.log.error("cannot accept: %s", error.strerror)
                self.accept_at = time.monotonic() + 0.1
            return False
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(client, address, self.addresses[listener])
        self.connections.add(connection)
        self._count()
        self._expect(connection, HEAD_S, self._drop)
        self.accepted = True
        self._guard(self._readable, connection)  # most have sent their request by now
        if not (connection.interest or connection.working or connection.gone):
            self._watch(connection, READ)
        return True

    def _count(self) -> None:
        if not self.retired:
            board.note(self.age, len(self.connections), self.answering)

    def _watch(self, connection: Connection, interest: int) -> None:
        if interest == connection.interest:
            return
        if not connection.interest:
            self.selector.register(connection.socket, interest, connection)
        elif not interest:
            self.selector.unregister(connection.socket)
        else:
            self.selector.modify(connection.socket, interest, connection)
        connection.interest = interest

    def _expect(self, connection: Connection, seconds: float, overdue: Callable[[Connection], None]) -> None:
        connection.deadline = time.monotonic() + seconds
        connection.overdue = overdue

    def _drop(self, connection: Connection) -> None:
        """Close at once."""
        if connection.gone:
            return
        connection.gone = True
        self._watch(connection, 0)
        self._reserve(connection, 0)
        connection.socket.close()
        self.connections.discard(connection)
        self._count()

    def _close(self, connection: Connection) -> None:
        """Close after the last answer: say so, and read on for a moment, so that no reset destroys the answer."""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        connection.lingering = True
        self._reserve(connection, 0)
        connection.received.clear()
        if connection.ended:
            self._drop(connection)
            return
        self._expect(connection, LINGER_S, self._drop)
        self._watch(connection, READ)

    # Turns of the loop

    def _turn(self, longest_s: float) -> None:
        now = time.monotonic()
        wait = 0.0 if self.pipelined or self.finished else longest_s
        if self.accept_at > now:
            wait = min(wait, self.accept_at - now)
        ready = sorted(self.selector.select(wait), key=_precedence)
        until = time.monotonic() + TURN_S
        for key, events in ready:
            if isinstance(key.data, Connection):
                key.data.served_at = now
                self._guard(self._readable if events & READ else self._writable, key.data)
            elif key.data is not None:
                self._accept_waiting(until - TURN_S / 2)  # the rest is for those who are connected
            else:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
                self._look_at_models()
            if time.monotonic() > until:
                self.behind = True
                break  # the others will be ready in the next turn as well
        else:
            self.behind = False
        until = time.monotonic() + TURN_S
        while self.finished and time.monotonic() < until:
            connection, future = self.finished.popleft()
            self.reserved_bytes -= self.running.pop(future).reserved_bytes
            if connection.task is future and not connection.gone:
                connection.task = None
                self._guard(self._send_result, connection, future)
        until = time.monotonic() + TURN_S
        for _ in range(len(self.pipelined)):
            if time.monotonic() > until:
                break
            self._guard(self._advance, self.pipelined.popleft())
        if now >= self.expire_at:
            self.notify()
            self._expire(now)
            self.expire_at = now + 0.25

    def _guard(self, step: Callable[..., None], connection: Connection, *more: Any) -> None:
        """Take one step with one connection; whatever goes wrong ends that connection and no other."""
        try:
            step(connection, *more)
        except Exception:  # one client must not end the loop that serves all the others
            self.log.exception("a connection was given up")
            self._drop(connection)

    def _expire(self, now: float) -> None:
        for connection in [c for c in self.connections if c.deadline <= now]:
            self._guard(connection.overdue, connection)
        if any(task.stuck_at <= now for task in self.running.values()) and self.alive:
            self.log.error("a prediction has run for twice its deadline; the worker is replaced")
            self.alive = False
        if self.measure_at <= now:
            self.measure_at = now + MEASURE_S
            self._look_at_memory()
        if self.tired and self.alive and board.may_retire(self.answering, self.cfg.workers):
            self.log.info("the worker %s and is replaced", self.tired)
            self.alive = False

    def _look_at_memory(self) -> None:
        resident = resident_mib()
        if not self.rested_mib:
            self.rested_mib = resident
        if resident > max(board.worker_mib, GROWTH * self.rested_mib) and not self.tired:
            self.tired = f"has grown from {self.rested_mib:.0f} to {resident:.0f} MiB"

    def _look_at_models(self) -> None:
        catalogue = self.keeper.peek()
        if catalogue is not None and catalogue is not self.catalogue:
            self.catalogue, self.cheap = catalogue, CheapModels(catalogue)
            self.answering, self.complete = catalogue.answering(), catalogue.ready()
            self.rested_mib = 0.0  # what the models themselves take is no growth
            self._count()

    def _readable(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)
            return
        if connection.lingering:
            if not data:
                self._drop(connection)
            return
        connection.active_at = time.monotonic()
        if data:
            connection.received += data
            self._advance(connection)
        elif connection.received:
            connection.ended = True
            self._refuse(connection, InvalidHeader("the request ended before its end; send the whole of it"))
        else:
            self._drop(connection)

    def _reserve(self, connection: Connection, n_bytes: int) -> None:
        """Set memory aside for a connection, instead of what was set aside for it before."""
        self.reserved_bytes += n_bytes - connection.reserved_bytes
        connection.reserved_bytes = n_bytes

    def _reserve_body(self, connection: Connection, body_bytes: int) -> bool:
        """Set aside what a body may grow to, or refuse it."""
        if self.settings.gzip_requests and b"\ncontent-encoding" in connection.received[: 2 * FRAMING_BYTES].lower():
            body_bytes = self.max_body_bytes
        wanted = body_bytes * (BODY_GROWTH if body_bytes > FRAMING_BYTES else 1)
        if wanted and self.reserved_bytes - connection.reserved_bytes + wanted > board.body_bytes:
            self._refuse(
                connection, InsufficientMemory("there is no memory for this body now; send fewer rows, or later")
            )
            return False
        self._reserve(connection, wanted)
        return True

    def _advance(self, connection: Connection) -> None:
        """Look whether a whole request has come, and hand it on."""
        if connection.gone or connection.working or not connection.received:
            return
        if connection.head is None:
            connection.head = read_head(connection.received)
            if connection.head is None:
                if connection.overdue != self._refuse_late:
                    self._expect(connection, HEAD_S, self._refuse_late)
                self._watch(connection, READ)
                return
            if not self._begin_body(connection, connection.head):
                return
        end = self._end(connection, connection.head)
        if connection.chunks is not None and not self._reserve_body(connection, len(connection.received)):
            return
        if end is None and connection.chunks is not None and connection.chunks.received_bytes > self.max_body_bytes:
            too_large = PayloadTooLarge(f"the body has more than {self.max_body_bytes} bytes; send fewer rows at once")
            self._refuse(connection, too_large)
            return
        if end is not None:
            self._hand(connection, end)
        elif connection.chunks is not None and connection.chunks.irregular:
            self._hand(connection, len(connection.received), last=True)
        else:
            self._watch(connection, READ)

    def _begin_body(self, connection: Connection, head: Head) -> bool:
        """Decide by its head whether a request's body is to be read here."""
        if head.irregular or (head.body_bytes or 0) > self.max_body_bytes:
            self._hand(connection, head.size_bytes if not head.irregular else len(connection.received), last=True)
            return False
        if not self._reserve_body(connection, head.body_bytes or 0):
            return False
        if head.body_bytes is None:
            connection.chunks = Chunks(head.size_bytes)
        here = len(connection.received) - head.size_bytes
        if head.expects_continue and (head.body_bytes is None or here < head.body_bytes):
            with suppress(OSError):
                connection.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n", socket.MSG_DONTWAIT)
        self._expect(connection, BODY_S, self._refuse_late)
        return True

    def _end(self, connection: Connection, head: Head) -> int | None:
        received = connection.received
        if head.body_bytes is not None:
            end = head.size_bytes + head.body_bytes
            return end if len(received) >= end else None
        assert connection.chunks is not None
        end_of_chunks = connection.chunks.end(received)
        if end_of_chunks is None and len(received) > head.size_bytes + self.max_body_bytes + FRAMING_BYTES:
            connection.chunks.irregular = True  # over the limit: the app refuses it
        return end_of_chunks

    def _hand(self, connection: Connection, end: int, *, last: bool = False) -> None:
        """Give a whole request to a thread, or answer it here where that is cheaper."""
        request = bytes(connection.received[:end])
        del connection.received[:end]
        connection.head = connection.chunks = None
        connection.last = last or connection.last
        connection.working = True
        self.nr += 1
        if self.nr >= self.max_requests and not self.tired:
            self.tired = f"has answered {self.nr} requests"
        if self._is_probe(request) or self._is_cheap(connection, request):
            self._send(connection, *self._answer_here(connection, request))
        elif len(self.running) >= self.cfg.threads + self.settings.queue:
            self._refuse(connection, Overloaded("every thread is busy and the queue is full; send it again"))
        else:
            self._watch(connection, 0)
            self._expect(connection, self.settings.request_timeout_s, self._give_up)
            connection.task = future = self.pool.submit(self._compute, connection, request)
            stuck_at = time.monotonic() + 2 * self.settings.request_timeout_s
            self.running[future] = Running(stuck_at, connection.reserved_bytes)
            connection.reserved_bytes = 0  # the task has it now, whatever becomes of the connection
            future.add_done_callback(lambda done: self._report(connection, done))

    def _is_probe(self, request: bytes) -> bool:
        """Whether a balancer asks for health, which is told even where every thread is busy."""
        return request.startswith(ASKING) and path_of(request) in self.health_paths

    def _is_cheap(self, connection: Connection, request: bytes) -> bool:
        known = self.keeper.peek() is self.catalogue  # else the paths are those of other models
        return known and self.cheap.take(request, connection.reserved_bytes)

    def _answer_here(self, connection: Connection, request: bytes) -> tuple[bytes, bool]:
        began = time.monotonic()
        answered = self._answer(connection, request)
        self.cheap.note(request, time.monotonic() - began)
        return answered

    def _report(self, connection: Connection, future: Future[tuple[bytes, bool]]) -> None:
        self.finished.append((connection, future))
        self._wake_up()

    def _wake_up(self) -> None:
        """Have the loop look around, from any thread."""
        with suppress(BlockingIOError):  # the pipe is full of reasons to wake up already
            os.write(self.wake[1], b"!")

    def _send_result(self, connection: Connection, future: Future[tuple[bytes, bool]]) -> None:
        self._send(connection, *future.result())

    # Answers

    def _compute(self, connection: Connection, request: bytes) -> tuple[bytes, bool]:
        alone = self.behind and self.alone.acquire(timeout=ALONE_S)
        try:
            return self._answer(connection, request)
        finally:
            if alone:
                self.alone.release()

    def _answer(self, connection: Connection, request: bytes) -> tuple[bytes, bool]:
        """Answer one whole request; return the bytes, and whether the connection may go on."""
        close = connection.last or not self.alive or not self.cfg.keepalive
        return self.answers.answer(request, connection.address, connection.server, close=close)

    def _send(self, connection: Connection, answer: bytes, keep: bool) -> None:
        self._reserve(connection, len(answer))
        connection.outgoing = memoryview(answer)
        connection.last = connection.last or not keep
        connection.working = True
        self._expect(connection, WRITE_S, self._drop)
        self._writable(connection)

    def _writable(self, connection: Connection) -> None:
        try:
            while connection.outgoing:
                sent = connection.socket.send(connection.outgoing, socket.MSG_DONTWAIT)
                connection.outgoing = connection.outgoing[sent:]
        except (BlockingIOError, InterruptedError):
            self._watch(connection, WRITE)
            return
        except OSError:
            self._drop(connection)
            return
        self._reserve(connection, 0)
        connection.working = False
        connection.active_at = time.monotonic()
        if connection.last:
            self._close(connection)
        else:
            self._expect(connection, self.cfg.keepalive, self._drop)
            self._watch(connection, READ)
            if connection.received:
                self.pipelined.append(connection)

    def _refuse(self, connection: Connection, error: ServiceError) -> None:
        connection.last = True
        self._send(connection, problem(error), False)

    def _refuse_late(self, connection: Connection) -> None:
        self._refuse(connection, RequestTimeout("the request did not arrive in time; send it at once"))

    def _give_up(self, connection: Connection) -> None:
        task, connection.task = connection.task, None
        if task is not None:
            task.cancel()  # it may not have begun
        self._refuse(connection, Overloaded("the prediction took too long; send fewer rows, or send it again"))

    # The end

    def _drain(self) -> None:
        """Answer what was accepted, accept what has connected, and leave nobody with a reset."""
        began = time.monotonic()
        deadline = began + max(self.cfg.graceful_timeout - EXIT_MARGIN_S, 1.0)
        self._await_word(began)
        self.wsgi.extensions["anyport"].draining = True
        self.keeper.forget_loading()
        if board.stopping:
            self._be_a_lame_duck(min(began + self.settings.lame_duck_s, deadline))
        else:
            self._leave_the_board()
        self._accept_from_now_on(False)
        self._finish(began, deadline)
        for listener in self.sockets:
            listener.close()
        self._leave_the_board()
        if self.running:
            self.log.error("%d predictions were still running at the deadline", len(self.running))
            logging.shutdown()
            os._exit(0)
        self.pool.shutdown()

    def _await_word(self, began: float) -> None:
        """Serve on until it is clear whether the whole service ends."""
        if self.ppid != os.getppid():
            board.announce_stop()  # the master was killed: nobody accepts after its workers
        while self.told and not board.stopping and time.monotonic() < began + WORD_S:
            self._serve(0.02)

    def _be_a_lame_duck(self, until: float) -> None:
        """Not ready, but still serving; then let nobody new begin to connect, and wait for those who have begun."""
        while time.monotonic() < until:
            self._serve(0.05)
        for listener in self.sockets:
            drop_new_connections(listener)
        settled = time.monotonic() + SYN_SETTLE_S
        while time.monotonic() < settled:
            self._turn(0.01)

    def _finish(self, began: float, deadline: float) -> None:
        """Answer everybody who is here; where nobody accepts after this worker, those who have connected as well."""
        self._accept_the_last()
        while self.connections and time.monotonic() < deadline:
            self._turn(0.05)
            quiet_since = time.monotonic() - IDLE_GRACE_S
            for connection in [c for c in self.connections if c.idle and max(c.active_at, began) < quiet_since]:
                self._close(connection)
            self._accept_the_last()
        for connection in list(self.connections):
            if connection.task is not None:
                connection.task = None
                self._guard(
                    self._refuse, connection, Draining("the worker had to end before the answer; send it again")
                )
            self._drop(connection)

    def _accept_the_last(self) -> None:
        for listener in self.sockets:
            while board.stopping and self._accept(listener):
                pass

    def _leave_the_board(self) -> None:
        self.retired = True
        board.forget(self.age)
