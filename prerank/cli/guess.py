"""What the columns of a stranger's log are likely to mean: names first, then what the values look like.

Every guess is cheap to correct and carries its reason into the config that `prerank init` writes. The
one thing never guessed generously is what the outcome decides: such columns are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from prerank.cli.describe import describe
from prerank.cli.leaks import SUSPICIOUS, column_auc
from prerank.config import ConfigError

# the usual names, likeliest first
USER: tuple[str, ...] = (
    "user_id",
    "userid",
    "user",
    "uid",
    "member_id",
    "customer_id",
    "visitor_id",
    "viewer_id",
    "account_id",
    "device_id",
)
ITEM: tuple[str, ...] = ("item_id", "itemid", "item", "iid", "video_id", "movie_id", "movieid", "product_id", "goods_id", "sku", "sku_id")
ITEM += ("ad_id", "adgroup_id", "article_id", "news_id", "doc_id", "document_id", "content_id", "song_id", "track_id", "book_id", "job_id")
ITEM += ("asin", "parent_asin")
TIME = ("timestamp", "time", "ts", "time_ms", "time_stamp", "unix_time", "event_time", "datetime", "created_at", "created", "date")
REQUEST = ("request_id", "requestid", "req_id", "impression_id", "query_id", "search_id", "session_id", "sessionid")
LABELS = ("label", "is_click", "click", "clicked", "target", "y", "clk", "long_view", "is_like", "like", "conversion", "purchase", "buy")
RATINGS = ("rating", "ratings", "stars", "score", "overall")

_ACTION = re.compile(
    r"^(is_|has_|if_|n_)?(click|clk|like|dislike|follow|comment|forward|share|hate|report|buy|bought|purchase|order|cart|fav|favou?rite|collect"
    r"|conver|install|pay|play|watch|long_view|valid_view|dwell|stay|finish|complet|skip|rating|stars|profile_|enter)"
    r"|(_clicked|_liked|_purchased|stay_time|play_time|watch_time|watch_ratio|play_ratio|dwell_time)$"
)
_LATER = re.compile(r"(^|_)(position|rank|slot)$")
_CLOCK = re.compile(r"^(date|dt|ds|day|hourmin|datetime|time|timestamp|ts|time_ms|year|month)$|_(at|time|date|dt|ts|timestamp)$")


@dataclass(frozen=True)
class Guess:
    """What a log seems to be.

    label      name and how it is made, as in the config
    others     further outcomes of the impression, as labels that could be learned too
    features   mappings as in the config, each with `why`, a few words for the reader
    left_out   {column: why it is no feature}
    """

    user_id: str
    item_id: str
    time: str | None
    request: str | None
    label: tuple[str, dict[str, Any]]
    others: dict[str, dict[str, Any]]
    features: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def guess(
    log: pl.DataFrame,
    users: pl.DataFrame | None = None,
    items: pl.DataFrame | None = None,
    *,
    named: Mapping[str, str | None] | None = None,
) -> Guess:
    """Guess the roles of all columns from samples of the tables.

    named   roles the user has told: user_id, item_id, time, label -> column
    Raises ConfigError for a role that cannot be told, naming the option that tells it.
    """
    told = {k: v for k, v in (named or {}).items() if v}
    for role, column in told.items():
        if column not in log.columns:
            raise ConfigError(f"--{role.replace('_', '-')}: the log has no column '{column}'; columns: {', '.join(log.columns)}")
    user_id = told.get("user_id") or _key("user_id", USER, log, users)
    item_id = told.get("item_id") or _key("item_id", ITEM, log, items)
    time = told.get("time") or _time(log)
    request = _named(REQUEST, log.columns)
    outcomes = _outcomes(log, {user_id, item_id, time, request})
    label = _told_label(told["label"], log) if "label" in told else _label(outcomes)
    others = {_label_name(c): how for c, how in outcomes.items() if _columns(how).isdisjoint(_columns(label[1]))}
    found = Guess(user_id, item_id, time, request, (_label_name(label[0]), label[1]), others)
    _log_features(found, log, _columns(label[1]) | set(outcomes))
    for side, table, key in (("user", users, user_id), ("item", items, item_id)):
        if table is not None:
            _table_features(found, side, table, key)
    taken = {user_id, item_id} | {f["name"] for f in found.features}
    for side, key in (("item", item_id), ("user", user_id)):
        found.features.insert(0, {"name": key, "side": side, "why": "the id itself"})
    _share(found, log, items, item_id)
    assert len(taken) == len(found.features), "a column cannot be two features"
    return found


def named_like_outcome(column: str) -> bool:
    """True when a column is named for something the user did after the impression."""
    return bool(_ACTION.search(column.lower()))


def _key(role: str, names: tuple[str, ...], log: pl.DataFrame, table: pl.DataFrame | None) -> str:
    """The id column: by name, else the one column that the entity's table shares and that is unique there."""
    named = _named(names, log.columns)
    if named and (table is None or named in table.columns):
        return named
    shared = [c for c in log.columns if table is not None and c in table.columns and table[c].n_unique() == len(table)]
    if len(shared) == 1:
        return shared[0]
    option = f"--{role.replace('_', '-')}"
    raise ConfigError(
        f"init: cannot tell which column is the {role.replace('_', ' ')}; name it with {option} COLUMN; columns: {', '.join(log.columns)}"
    )


def _named(names: tuple[str, ...], columns: list[str]) -> str | None:
    lower = {c.lower(): c for c in reversed(columns)}
    return next((lower[n] for n in names if n in lower), None)


def _time(log: pl.DataFrame) -> str | None:
    """A date or an integer that is a plausible moment since 1990, best name first."""

    def plausible(column: str) -> bool:
        values = log[column]
        if values.dtype in (pl.Datetime, pl.Date):
            return True
        if not values.dtype.is_integer():
            return False
        low = values.drop_nulls().min()
        return isinstance(low, int) and any(631_152_000 * unit <= low < 4_102_444_800 * unit for unit in (1, 1_000, 1_000_000))

    candidates = [c for c in log.columns if plausible(c)]
    by_name = [c for n in TIME for c in candidates if c.lower() == n]
    return next(iter(by_name + [c for c in candidates if _CLOCK.search(c.lower())]), None)


def _outcomes(log: pl.DataFrame, roles: set[str | None]) -> dict[str, dict[str, Any]]:
    """Columns that say what happened, and how each makes a label; the likeliest first."""
    found = {}
    for column in sorted(log.columns, key=_rank):
        known = column.lower() in (*LABELS, *RATINGS) or named_like_outcome(column)
        if column not in roles and known and (how := _how(column, log)):
            found[column] = how
    return found


def _rank(column: str) -> int:
    names = (*LABELS, *RATINGS)
    return names.index(column.lower()) if column.lower() in names else len(names)


def _how(column: str, log: pl.DataFrame, *, rating: bool = False) -> dict[str, Any]:
    """0/1 or true/false: the column; a rating: above its middle; nothing when it is no label."""
    values = log[column].drop_nulls()
    if values.dtype == pl.Boolean:
        return {"column": column}
    if not values.dtype.is_numeric() or not len(values):
        return {}
    distinct = values.unique()
    if set(distinct.to_list()) <= {0, 1}:
        return {"column": column}
    if (rating or column.lower() in RATINGS) and len(distinct) <= 20:
        middle = (float(distinct.min()) + float(distinct.max())) / 2  # type: ignore[arg-type]
        return {"rule": f"{column} > {middle:g}"}
    return {}


def _label(outcomes: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    if not outcomes:
        raise ConfigError("init: cannot tell which column is the label; name it with --label COLUMN (0 and 1, true and false, or a rating)")
    return next(iter(outcomes.items()))


def _told_label(column: str, log: pl.DataFrame) -> tuple[str, dict[str, Any]]:
    how = _how(column, log, rating=True)
    if not how:
        raise ConfigError(f"--label: column '{column}' is neither 0 and 1, nor true and false, nor a rating")
    return column, how


def _label_name(column: str) -> str:
    return column.lower().removeprefix("is_")


def _columns(how: Mapping[str, Any]) -> set[str]:
    return {how["column"]} if "column" in how else {str(how.get("rule", "")).split(" ")[0]}


def _log_features(found: Guess, log: pl.DataFrame, outcomes: set[str]) -> None:
    """Columns of the log: of the user, of the item, or of the request, unless the outcome decides them."""
    on = positive(found.label[1], log)
    roles = {found.user_id, found.item_id, found.time, found.request}
    for column in log.columns:
        if column in roles:
            continue
        described = describe(log[column], column)
        if column in outcomes or named_like_outcome(column):
            found.left_out[column] = "the outcome decides it"
        elif _CLOCK.search(column.lower()):
            found.left_out[column] = "a time"
        elif _LATER.search(column.lower()):
            found.left_out[column] = "decided after pre-ranking, so unknown when it scores"
        elif isinstance(described, str):
            found.left_out[column] = described
        elif (area := column_auc(log[column], on)) >= SUSPICIOUS:
            found.left_out[column] = f"alone it reaches AUC {area:.2f} on the label: a leak until proved otherwise"
        else:
            found.features.append({"name": column, "side": _side(log, column, found), **described})


def _table_features(found: Guess, side: str, table: pl.DataFrame, key: str) -> None:
    taken = {f["name"] for f in found.features}
    for column in table.columns:
        if column == key:
            continue
        described = describe(table[column], column)
        if column in taken or column in (found.user_id, found.item_id):
            found.left_out[f"{column} ({side}s)"] = "another table has it"
        elif _CLOCK.search(column.lower()):
            found.left_out[column] = "a time"
        elif isinstance(described, str):
            found.left_out[column] = described
        else:
            found.features.append({"name": column, "side": side, **described})


def _side(log: pl.DataFrame, column: str, found: Guess) -> str:
    """user (item) when the value hardly ever changes for a user (item); else context."""
    for side, key in (("user", found.user_id), ("item", found.item_id)):
        entities = log[key].n_unique()
        pairs = log.select(pl.struct(key, column).n_unique()).item()
        if pairs <= 1.01 * entities and len(log) >= 1.5 * entities:
            return side
    return next((side for side in ("user", "item") if column.lower().startswith(f"{side}_")), "context")


def positive(how: Mapping[str, Any], log: pl.DataFrame) -> Any:
    """Rows [n] where the label is on, as far as a missing value can be."""
    if "rule" in how:
        return log.select(pl.sql_expr(how["rule"])).to_series().fill_null(False).to_numpy()
    return (log[how["column"]].cast(pl.Float64).fill_null(0) > 0).to_numpy()


def _share(found: Guess, log: pl.DataFrame, items: pl.DataFrame | None, item_id: str) -> None:
    """A sequence of item ids reads the item id's own table."""
    ids = set(log[item_id].drop_nulls().cast(pl.String).to_list())
    for feature in found.features:
        values = next((t[feature["name"]] for t in (log, items) if t is not None and feature["name"] in t.columns), None)
        if feature.get("kind") != "sequence" or values is None:
            continue
        lists = values.cast(pl.String).str.split(feature.get("separator", "|")) if values.dtype == pl.String else values
        inner = lists.drop_nulls().list.explode().drop_nulls().cast(pl.String).unique().to_list()
        if inner and sum(v in ids for v in inner) >= 0.5 * len(inner):
            feature["share"] = item_id
