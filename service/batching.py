"""Makes one prediction of several that are wanted at the same time, where a model answers many rows for little more.

No thread of its own and no timer: whoever is first in the line predicts, for those right behind it as well, and then
lets the next one go on. Knows tables, outputs and what a model cost, and neither models nor requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from threading import Event, Lock

import numpy as np

from service.manifest import Cost
from service.runtimes import Outputs
from service.signature import Signature
from service.table import Table

DEAR_US = 1000
"""A prediction that takes no longer is over before others meet it, or the event loop makes it, which may not wait."""
GAIN = 2
"""How many times dearer eight rows must be one by one than at once; for less, threads side by side do as well."""

log = logging.getLogger(__name__)


def pays(cost: Cost) -> bool:
    """Whether a model was measured, and found dear by the prediction and cheap by the row."""
    times = cost.microseconds
    if not {"1", "8"} <= times.keys():
        return False
    return min(times.values()) > DEAR_US and GAIN * times["8"] < 8 * times["1"]


def rows_together(cost: Cost, most_rows: int) -> int:
    """Return how many rows may go together, at most `most_rows`: the others' cost no more than one prediction does.

    So whoever is first in the line waits for those who go with it no longer than it takes itself.
    """
    times = cost.microseconds
    measured = "64" if "64" in times else "8"
    of_a_row = (times[measured] - times["1"]) / (int(measured) - 1)
    return min(most_rows, 1 + int(times["1"] / of_a_row)) if of_a_row > 0 else most_rows


@dataclass(eq=False)
class Ticket:
    """One table's place in the line."""

    table: Table
    probabilities: bool
    kind: tuple[object, ...]
    """Tables of one kind can be joined without any value being converted."""
    alone: bool = False
    """Whether it has failed together with others."""
    outputs: Outputs | None = None
    called: Event = field(default_factory=Event)
    """Set when it is answered, or first in the line."""


class Batches:
    """The line before one model. Its head predicts; nobody overtakes.

    Args:
        score: Predicts a table, with probabilities or without.
        signature: What the tables hold.
        most_rows: How many rows are predicted together.
    """

    def __init__(self, score: Callable[[Table, bool], Outputs], signature: Signature, most_rows: int) -> None:
        self._score = score
        self._most_rows = most_rows
        self._gappy = [f.name for f in signature.features if f.takes_null and f.dtype in ("int64", "bool")]
        self._lock = Lock()
        self._line: list[Ticket] = []

    def score(self, table: Table, probabilities: bool) -> Outputs:
        """Predict a table when its turn comes, unless somebody before it has done so.

        Raises:
            Exception: What predicting this table alone raises.
        """
        ticket = Ticket(table, probabilities, self._kind(table))
        try:
            if not self._enter(ticket):
                ticket.called.wait()
            return ticket.outputs or self._lead(ticket)
        finally:
            self._leave(ticket)

    def _kind(self, table: Table) -> tuple[object, ...]:
        """Dtypes, and which whole numbers and truth values have gaps: a frame makes floats of all the others then."""
        dtypes = [column.dtype for column in table.columns.values()]
        return *dtypes, *(None in table.columns[name].tolist() for name in self._gappy)

    def _enter(self, ticket: Ticket) -> bool:
        """Join the line; return whether nobody is before it."""
        with self._lock:
            self._line.append(ticket)
            return self._line[0] is ticket

    def _leave(self, ticket: Ticket) -> None:
        """Go, whatever has happened, with everybody who is answered; call them, and whoever is first now."""
        with self._lock:
            answered = [other for other in self._line if other.outputs is not None]
            self._line = [other for other in self._line if other.outputs is None and other is not ticket]
            for other in answered + self._line[:1]:
                other.called.set()

    def _lead(self, first: Ticket) -> Outputs:
        """Predict for those who may go together, and alone if that fails."""
        batch = self._batch(first)
        if len(batch) > 1:
            self._answer(batch)
        return first.outputs or self._score(first.table, first.probabilities)

    def _batch(self, first: Ticket) -> list[Ticket]:
        """The first of the line, and as many right behind it as fit; nobody if it goes alone."""
        with self._lock:
            line = self._line.copy()
        ends = accumulate(ticket.table.n_rows for ticket in line)
        fitting = takewhile(lambda place: self._fits(first, *place), zip(line, ends, strict=True))
        return [ticket for ticket, _ in fitting]

    def _fits(self, first: Ticket, ticket: Ticket, n_rows: int) -> bool:
        return n_rows <= self._most_rows and ticket.kind == first.kind and not ticket.alone

    def _answer(self, batch: list[Ticket]) -> None:
        """Answer a batch; if that fails, each of it is to go alone, in its turn and its own thread."""
        try:
            shares = self._shares(batch)
        except (Exception, SystemExit) as error:  # a model may raise anything, over the rows of any of them
            log.warning("%d requests failed together (%s); each is predicted alone", len(batch), type(error).__name__)
            for ticket in batch:
                ticket.alone = True
            return
        with self._lock:
            for ticket, share in zip(batch, shares, strict=True):
                ticket.outputs = share

    def _shares(self, batch: list[Ticket]) -> list[Outputs]:
        outputs = self._score(join([ticket.table for ticket in batch]), any(ticket.probabilities for ticket in batch))
        without = Outputs(outputs.predictions)
        ends = accumulate((ticket.table.n_rows for ticket in batch), initial=0)
        return [
            rows_of(outputs if ticket.probabilities else without, start, stop)
            for ticket, (start, stop) in zip(batch, pairwise(ends), strict=True)
        ]


def join(tables: Sequence[Table]) -> Table:
    """Put tables of one kind below each other."""
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    return Table(columns, sum(table.n_rows for table in tables))


def rows_of(outputs: Outputs, start: int, stop: int) -> Outputs:
    """Return a view of some rows' outputs."""
    shares = outputs.probabilities
    return Outputs(
        outputs.predictions[start:stop], None if shares is None else tuple(share[start:stop] for share in shares)
    )
