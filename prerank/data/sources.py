"""Where each feature is read from: an entity table when it has the column, else the log, or a derived column.

Also the one place where all columns that the settings name are checked, so that every problem is
reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from prerank.config import ConfigError, Data, Derived, nearest
from prerank.data import asof
from prerank.data import split as splitting
from prerank.data.errors import DataError
from prerank.data.labels import Labels
from prerank.data.stages import StageReader
from prerank.data.table import Table
from prerank.data.values import value_type
from prerank.schema import Feature, Schema

Entity = Literal["user", "item"]


@dataclass(frozen=True)
class Sources:
    """The tables, and the source of every feature.

    place   {feature: "id", "table" (users or items), "log" or "derived"}
    """

    data: Data
    schema: Schema
    log: Table
    users: Table | None
    items: Table | None
    labels: Labels
    place: dict[str, str]
    derived: dict[str, Derived]
    candidates: Table | None = None

    @property
    def staged(self) -> bool:
        """Whether there may be rows that are no impressions."""
        return self.data.stage is not None or self.candidates is not None

    def table(self, side: Entity) -> Table | None:
        return self.users if side == "user" else self.items

    def features(self, place: str) -> list[Feature]:
        return [f for f in self.schema.features if self.place[f.name] == place]

    def entity_features(self, side: Entity) -> list[Feature]:
        """Features of the users (items) table: all of the side that are not context."""
        return [f for f in self.schema.features if f.side == side]

    def log_columns(self) -> dict[str, pl.DataType | None]:
        """What a walk over the log reads: {column: type, or None for as stored}."""
        data = self.data
        columns: dict[str, pl.DataType | None] = dict.fromkeys([data.user_id, data.item_id, *self.labels.columns])
        columns |= dict.fromkeys([c for c in (data.time, data.request, data.split.column) if c])
        columns |= dict.fromkeys(f.source for f in self.features("log"))
        columns |= dict.fromkeys(d.by for d in self.derived.values())
        columns |= dict.fromkeys(c for s in data.asof for c in s.by if c in self.log.columns)
        columns |= dict.fromkeys(_of_the_cascade(data))
        told = set(self.labels.conditions) - {data.user_id, data.item_id}
        told |= {data.time} if data.time else set()
        told |= {c for c in columns if self.log.columns[c] == pl.Boolean}
        return {c: self.log.typed(c) if c in told else dtype for c, dtype in columns.items()}

    def id_type(self, side: Entity) -> pl.DataType:
        """Ids are integers or text; whole numbers stored as floats are integers."""
        own = value_type(self.log.columns[self.data.user_id if side == "user" else self.data.item_id])
        return pl.Int64() if own == pl.Float64 else own

    def by_row(self) -> list[Feature]:
        """Features with a value for each log row."""
        return [f for f in self.schema.features if self.place[f.name] in ("log", "derived")]


def find(data: Data) -> Sources:
    """Open the tables and place every feature. Raises DataError with one line for every problem."""
    if not data.log:
        raise DataError("data.log: a log is needed (or data.recipe, a data set the house knows)")
    try:
        schema = data.schema_()
    except ConfigError as error:
        raise DataError(str(error)) from None
    log = Table(data.log, "log", data.explode)
    users = Table(data.users, "users") if data.users else None
    items = Table(data.items, "items") if data.items else None
    problems = [log.problem(data.user_id, "data.user_id"), log.problem(data.item_id, "data.item_id")]
    candidates = Table(data.candidates, "candidates") if data.candidates else None
    problems += [] if candidates is None else _candidate_problems(candidates, data)
    problems += [log.problem(c, f"data.{what}") for c, what in _of_the_cascade(data).items()]
    optional = {"time": data.time, "request": data.request, "split.column": data.split.column}
    problems += [log.problem(c, f"data.{k}") for k, c in optional.items() if c]
    problems += [t.problem(c, f"data.{n}") for t, c, n in ((users, data.user_id, "user_id"), (items, data.item_id, "item_id")) if t]
    problems.append(splitting.check(data.split, bool(data.time), bool(data.request)))
    derived = {d.name: d for d in data.derive}
    for d in data.derive:
        problems += _derived_problems(d, data, log)
    problems += asof.problems(data, {*log.columns, *(users.columns if users else ()), *(items.columns if items else ())})
    made = {*derived, *(s.name for s in data.asof)}
    place = {}
    for f in schema.features:
        place[f.name] = _place(f, data, made, log, users if f.side == "user" else items if f.side == "item" else None)
        if not place[f.name]:
            table = users if f.side == "user" else items if f.side == "item" else None
            known = {*log.columns, *(table.columns if table else ()), *made}
            where = f"{table.role} and log have" if table else "log has"
            problems.append(f"feature '{f.name}': {where} no column '{f.source}'{nearest(f.source, known)}")
    problems += [_growth_problem(name, schema) for name in data.growth]
    try:
        labels = Labels(data.labels, log)
    except DataError as error:
        problems.append(str(error))
    found = [p for p in problems if p]
    if found:
        raise DataError("\n".join(found))
    return Sources(data, schema, log, users, items, labels, place, derived, candidates)


def _of_the_cascade(data: Data) -> dict[str, str]:
    """{column: setting} of stage, teacher and bid."""
    columns = {data.stage.column: "stage"} if data.stage else {}
    columns |= dict.fromkeys(data.teacher.columns(), "teacher") if data.teacher else {}
    return columns | ({data.bid: "bid"} if data.bid else {})


def _candidate_problems(candidates: Table, data: Data) -> list[str | None]:
    """What the table of candidates must have: ids and stage, and the request where the log has one."""
    needed = {data.user_id: "data.user_id", data.item_id: "data.item_id"}
    needed[StageReader.of_candidates(data.stage, candidates.columns).column] = "stage"
    needed |= {data.request: "data.request"} if data.request else {}
    return [candidates.problem(column, what) for column, what in needed.items()]


def _growth_problem(name: str, schema: Schema) -> str | None:
    own = [f.name for f in schema.features if f.kind != "numeric" and f.embedded and f.share is None]
    if name in own:
        return None
    return f"data.growth: '{name}' must be a feature with a vocabulary of its own{nearest(name, own) if own else '; there is none'}"


def _place(f: Feature, data: Data, made: set[str], log: Table, table: Table | None) -> str:
    if f.kind == "categorical" and (f.side, f.source) in (("user", data.user_id), ("item", data.item_id)):
        return "id"
    if f.source in made:
        return "derived"
    if table and f.source in table.columns:
        return "table"
    return "log" if f.source in log.columns else ""


def _derived_problems(d: Derived, data: Data, log: Table) -> list[str | None]:
    what = f"derived column '{d.name}'"
    problems = [log.problem(d.by, what)]
    if d.name in log.columns:
        problems.append(f"{what}: the log already has a column of this name")
    if d.label is not None and d.label not in data.labels:
        problems.append(f"{what}: label must be one of the labels, got '{d.label}'{nearest(d.label, data.labels)}")
    if d.kind == "target_mean" and d.label is None:
        problems.append(f"{what}: target_mean needs a label")
    if d.how == "as_of" and not data.time:
        problems.append(f"{what}: how: as_of needs data.time, the column of the event's time")
    if d.kind == "history":
        problems.append(log.problem(d.of, what) if d.of else f"{what}: history needs of, the column that is collected")
        if not data.time:
            problems.append(f"{what}: history needs data.time, the column of the event's time")
    return problems
