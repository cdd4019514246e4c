"""Turns visits into medians, ratios to a named base, and Markdown; reads the Markdown back for whoever quotes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from bench.measure import Load, Visit
from bench.workloads import Workload

BASE = "twin"
LOAD_COLUMNS = (
    "connections",
    "peer",
    "requests/s",
    f"× {BASE}",
    "p50 ms",
    "p99 ms",
    "CPU ms",
    f"CPU × {BASE}",
    "errors",
)
START_COLUMNS = (
    "peer",
    "accepts s",
    "live s",
    "first answer s",
    "idle MiB",
    "loaded MiB",
    "environment MiB",
    "labels differ",
    "numbers off",
    "largest error",
)
NOTHING = "–"

Row = dict[str, str]


def number(value: float | None) -> str:
    """Write a number with three significant digits, and whole from a hundred on."""
    if value is None:
        return NOTHING
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median, or nothing of nothing."""
    values = [value for value in values if value is not None]
    return median(values) if values else None


def ratio(ours: Sequence[float], base: Sequence[float]) -> float | None:
    """Return the median of the rounds' own ratios, so that what disturbed a whole round does not count."""
    return middle(one / other for one, other in zip(ours, base, strict=False) if other)


def load_rows(visits: Sequence[Visit], workload: Workload, base: str = BASE) -> list[Row]:
    """Return a row for each number of connections and peer, the fastest peer first."""
    rows = []
    for connections in workload.connections:
        taken = {peer: loads(visits, peer, workload.name, connections) for peer in order(visits)}
        taken = {peer: found for peer, found in taken.items() if found}
        for peer, found in sorted(taken.items(), key=lambda item: -(middle(rates(item[1])) or 0)):
            rows.append({"connections": str(connections), "peer": peer} | figures(found, taken.get(base, ())))
    return rows


def figures(found: Sequence[Load], base: Sequence[Load]) -> Row:
    """Return the medians of one peer's rounds next to those of the base."""
    taken = rates(found)
    spread = f"{number(middle(taken))} ({number(min(taken))} to {number(max(taken))})"
    cpu = [each.cpu_ms for each in found]
    cells = (
        spread,
        number(ratio(taken, rates(base))),
        number(middle(each.result.p50_ms for each in found)),
        number(middle(each.result.p99_ms for each in found)),
        number(middle(cpu)),
        number(ratio(cpu, [each.cpu_ms for each in base])),
        str(sum(each.result.errors for each in found)),
    )
    return dict(zip(LOAD_COLUMNS[2:], cells, strict=True))


def rates(found: Sequence[Load]) -> list[float]:
    """Return the good answers a second of each round."""
    return [each.result.rate for each in found]


def loads(visits: Sequence[Visit], peer: str, workload: str, connections: int) -> list[Load]:
    """Return one peer's loads of one kind, in the order of the rounds."""
    mine = [each for visit in visits if visit.peer == peer for each in visit.loads]
    return [each for each in mine if (each.workload, each.connections) == (workload, connections)]


def order(visits: Sequence[Visit]) -> list[str]:
    """Return the peers in the order in which they were first visited."""
    return list(dict.fromkeys(visit.peer for visit in visits))


def start_rows(visits: Sequence[Visit], workload: Workload, sizes_mib: dict[str, float]) -> list[Row]:
    """Return a row for each peer: start, memory, size, and what its answers were worth."""
    rows = []
    for peer in order(visits):
        mine = [each for each in visits if each.peer == peer and workload.name in each.loaded_mib]
        if mine:
            cells = (peer, *starts(mine, workload.name), number(sizes_mib.get(peer)), *worth(mine))
            rows.append(dict(zip(START_COLUMNS, cells, strict=True)))
    return rows


def starts(mine: Sequence[Visit], workload: str) -> tuple[str, ...]:
    """Return the medians of the phases of the start, and of memory."""
    takers: tuple[Callable[[Visit], float | None], ...] = (
        lambda visit: visit.waking and visit.waking.accepts_s,
        lambda visit: visit.waking and visit.waking.live_s,
        lambda visit: visit.first_answer_s,
        lambda visit: visit.idle_mib,
        lambda visit: visit.loaded_mib[workload],
    )
    return tuple(number(middle(map(take, mine))) for take in takers)


def worth(mine: Sequence[Visit]) -> tuple[str, str, str]:
    """Return the most labels and numbers that differed in any round, of how many, and the largest error."""
    verdicts = [each.verdict for each in mine if each.verdict]
    if not verdicts:
        return NOTHING, NOTHING, NOTHING
    differing = f"{max(each.differing for each in verdicts)} of {verdicts[0].rows}"
    errors = [each.largest_error for each in verdicts if each.largest_error is not None]
    if not errors:
        return differing, NOTHING, NOTHING
    off = f"{max(each.off or 0 for each in verdicts)} of {verdicts[0].rows}"
    return differing, off, f"{max(errors):.1e}"


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(row[column] for column in columns)} |" for row in rows)])


def read(text: str) -> dict[str, list[Row]]:
    """Read the tables of a results file back: for each heading all rows below it."""
    found: dict[str, list[Row]] = {}
    heading, columns = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            heading, columns = line.lstrip("# "), []
        elif not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells(line)
        elif not re.fullmatch(r"\|(---\|)+", line):
            found.setdefault(heading, []).append(dict(zip(columns, cells(line), strict=True)))
    return found


def cells(line: str) -> list[str]:
    """Split a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
