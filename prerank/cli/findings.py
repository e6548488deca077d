"""Opening what the settings name, past what is missing: the rest of a log is still worth checking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prerank.cli.guess import named_like_outcome
from prerank.config import Data, Label
from prerank.data.errors import DataError
from prerank.data.labels import Labels
from prerank.data.sources import Sources, find
from prerank.data.table import Table


@dataclass
class Findings:
    """What the walk found.

    errors     training would refuse these;   warnings   it would not, but a person should look
    facts      what the log is, in a few words each
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What the action returns; None and one error a line when it raises DataError."""
        try:
            return action()
        except DataError as error:
            self.errors += [line for line in str(error).splitlines() if line not in self.errors]
            return None


def open_sources(data: Data, found: Findings) -> Sources | None:
    """The sources; when some columns are missing, those of what is left, so that the rest is checked too."""
    if not data.log:
        found.errors.append("data.log: a log is needed (or data.recipe, a data set the house knows)")
        return None
    paths = {"log": data.log, "users": data.users, "items": data.items}
    lists = {"log": data.explode}
    tables = {role: found.attempt(partial(Table, path, role, lists.get(role, ()))) for role, path in paths.items() if path}
    if tables["log"] is None:
        return None
    if None not in tables.values():
        sources = found.attempt(lambda: find(data))
        if sources is not None:
            return sources
    try:
        left = _left(data, tables)
        return find(left)
    except ValueError:  # what it says has been said above
        return None


def _left(data: Data, tables: dict[str, Table | None]) -> Data:
    """The settings without what cannot be found."""
    log, users, items = tables["log"], tables.get("users"), tables.get("items")
    assert log is not None
    columns = {"user": {*log.columns, *(users.columns if users else ())}, "item": {*log.columns, *(items.columns if items else ())}}
    features = tuple(f for f in data.features if f.source in columns.get(f.side, log.columns))
    names = {f.name for f in features}
    features = tuple(f for f in features if f.share is None or f.share in names)
    labels = {n: setting for n, setting in data.labels.items() if _labels(n, setting, log)}
    update = {"features": features, "labels": labels, "derive": (), "users": users and data.users, "items": items and data.items}
    return data.model_copy(update=update)


def _labels(name: str, setting: Label, log: Table) -> Labels | None:
    try:
        return Labels({name: setting}, log)
    except DataError:
        return None


def outcome_features(sources: Sources, found: Findings) -> None:
    """A feature must be known when candidates are scored: nothing that a label is made of may be one."""
    labels = {c: n for n, s in reversed(sources.data.labels.items()) for c in Labels({n: s}, sources.log).columns}
    for f in sources.features("log"):
        if f.source in labels:
            found.errors.append(
                f"feature '{f.name}': reads column '{f.source}', which label '{labels[f.source]}' is made of; the outcome decides it"
            )
        elif named_like_outcome(f.source):
            found.warnings.append(f"feature '{f.name}': column '{f.source}' sounds like an outcome of the impression; is it known before?")


def means_beside_their_key(sources: Sources, found: Findings) -> None:
    """A mean of all other rows still tells a row's label to a model that knows the key: one value for the positives, one for the others.

    Bins do not hide it: an edge may lie between the two.
    """
    features = [f for f in sources.data.features if f.field]
    for setting in sources.data.derive:
        if setting.how == "leave_one_out" and any(f.source == setting.by and f.kind == "categorical" for f in features):
            found.warnings += [f"feature '{f.name}': a model that also reads '{setting.by}' can tell a train row's label from it, and "
                               "then learns less of what holds for other rows; take how: out_of_fold (or as_of), or leave one of them out"
                               for f in features if f.source == setting.name]  # fmt: skip
