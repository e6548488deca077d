"""One table of results, shown in a terminal and kept as Markdown: numbers aligned, spreads as mean ± std.

    table = Table("MovieLens-1M", [Column("model"), Column("AUC", best="max"), Column("LogLoss", best="min")])
    table.add({"model": "DSSM", "AUC": spread([.8791, .8795]), "LogLoss": .3402})
    table.add({"model": "IntTower", "AUC": .8974}, leaky="target statistics saw the test rows")
    console.print(table.rich());  path.write_text(table.markdown())

A row whose protocol leaks says LEAKY beside its name, and the table says why underneath.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import rich.table

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over n runs (seeds); one run has no deviation."""

    mean: float
    std: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1) of one number a run; raises ValueError for no runs."""
    if not values:
        raise ValueError("spread: needs at least one value, got none")
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


Value = str | int | float | Spread | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, how its numbers look, and which of them is best (shown bold)."""

    name: str
    digits: int = 4  # after the point; integers get thousands separators instead
    best: Literal["max", "min"] | None = None
    unit: str = ""


@dataclass(slots=True)
class Table:
    """Rows of values under columns."""

    title: str
    columns: Sequence[Column]
    rows: list[Mapping[str, Value]] = field(default_factory=list)
    leaky: list[str | None] = field(default_factory=list)

    def add(self, row: Mapping[str, Value], *, leaky: str | None = None) -> None:
        """Append a row; `leaky` says why its protocol leaks. Raises ValueError for a column that the table lacks."""
        unknown = sorted(set(row) - {c.name for c in self.columns})
        if unknown:
            raise ValueError(f"table '{self.title}': no column '{unknown[0]}'; columns: {', '.join(c.name for c in self.columns)}")
        self.rows.append(row)
        self.leaky.append(leaky)

    def rich(self) -> rich.table.Table:
        """For a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable

        caption = "\n".join(self._notes()) or None
        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        table.title, table.title_justify, table.title_style = escape(self.title), "left", "bold"
        table.caption, table.caption_justify = caption and escape(caption), "left"
        for column, right in zip(self.columns, self.right(), strict=True):
            table.add_column(escape(_heading(column)), justify="right" if right else "left", no_wrap=right, overflow="fold")
        for index, cells in enumerate(self.cells()):
            marked = [f"[bold]{escape(c)}[/]" if b else escape(c) for c, b in zip(cells, self._bold(index), strict=True)]
            if self.leaky[index]:
                marked[0] += " [bold red]LEAKY[/]"
            table.add_row(*marked)
        return table

    def markdown(self) -> str:
        """For a file: columns padded, so that the source reads like the table."""
        lines = [self.headings()]
        for index, cells in enumerate(self.cells()):
            marked = [f"**{c}**" if b else c for c, b in zip(cells, self._bold(index), strict=True)]
            if self.leaky[index]:
                marked[0] += " **LEAKY**"
            lines.append([c.replace("|", r"\|") for c in marked])
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(self.columns))]
        right = self.right()
        rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
        text = [_line(cells, widths, right) for cells in (lines[0], rule, *lines[1:])]
        notes = [f"\n{note}" for note in self._notes()]
        return "\n".join([f"**{self.title}**\n", *text, *notes]) + "\n"

    def headings(self) -> list[str]:
        """Names of the columns, with their units."""
        return [_heading(c) for c in self.columns]

    def cells(self) -> list[list[str]]:
        """Text of every row's values."""
        return [[_text(row.get(c.name), c.digits) for c in self.columns] for row in self.rows]

    def right(self) -> list[bool]:
        """Columns of numbers are set flush right."""
        return [all(not isinstance(row.get(c.name), str) for row in self.rows) and bool(self.rows) for c in self.columns]

    def _bold(self, index: int) -> list[bool]:
        return [self._is_best(column, index) for column in self.columns]

    def _is_best(self, column: Column, index: int) -> bool:
        """Best of the honest rows, to the digits shown; alone in its table no row is best."""
        values = [_number(row.get(column.name)) for row in self.rows]
        honest = [round(v, column.digits) for v, leaky in zip(values, self.leaky, strict=True) if v is not None and not leaky]
        value = values[index]
        if column.best is None or value is None or self.leaky[index] or len(honest) < 2:
            return False
        return round(value, column.digits) == (max(honest) if column.best == "max" else min(honest))

    def _notes(self) -> list[str]:
        """Why the leaky rows leak, each reason once."""
        return [f"LEAKY: {reason}" for reason in dict.fromkeys(r for r in self.leaky if r)]


def _heading(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _number(value: Value) -> float | None:
    if isinstance(value, Spread):
        return value.mean
    return None if value is None or isinstance(value, str) or value != value else float(value)


def _text(value: Value, digits: int) -> str:
    if isinstance(value, Spread):
        return f"{value.mean:,.{digits}f} ± {value.std:.{digits}f}" if value.n > 1 else f"{value.mean:,.{digits}f}"
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return f"| {' | '.join(padded)} |"
