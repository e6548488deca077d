"""`prerank init`: a sample of the user's log in, a commented config out."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from prerank.cli.guess import Guess

SAMPLE = 200_000  # rows of each table that are looked at
TRAIN = 0.7  # of the rows: what the split that is written leaves
REPEATED = 2.0  # rows an id from which on it has a history worth the name
STREAM = "left out: `prerank online` does not take it, its sums are of the whole of train"
MEMORY = 20_000_000  # train rows up to which histories, held in memory whole, are proposed


def init(
    log: Annotated[Path, typer.Argument(help="CSV or Parquet file, or a folder of Parquet parts: one row an impression")],
    users: Annotated[Path | None, typer.Option(help="table of user features, one row a user")] = None,
    items: Annotated[Path | None, typer.Option(help="table of item features, one row an item")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="the config to write")] = Path("prerank.yaml"),
    user_id: Annotated[str | None, typer.Option(help="column of the user id; default: guessed")] = None,
    item_id: Annotated[str | None, typer.Option(help="column of the item id; default: guessed")] = None,
    time: Annotated[str | None, typer.Option(help="column of the time; default: guessed")] = None,
    label: Annotated[str | None, typer.Option(help="column of the label; default: guessed")] = None,
    online: Annotated[bool, typer.Option("--online", help="for `prerank online`, too: its section, and nothing that it refuses")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing config")] = False,
) -> None:
    """Guess what the columns of a log mean and write a commented config.

    Examples:

        prerank init log.parquet

        prerank init log.csv --users users.csv --items items.csv -o my.yaml

        prerank init log.csv --user-id member --label bought

        prerank init log.parquet --online
    """
    from prerank.cli.guess import guess
    from prerank.config import ConfigError, parse

    if output.exists() and not force:
        raise ConfigError(f"config '{output}': exists already; --force replaces it, -o names another")
    if not output.parent.is_dir():
        raise ConfigError(f"config '{output}': folder '{output.parent}' does not exist")
    samples = {role: _sample(path, role) for role, path in (("log", log), ("users", users), ("items", items)) if path}
    frames = {role: frame for role, (frame, _) in samples.items()}
    named = {"user_id": user_id, "item_id": item_id, "time": time, "label": label}
    found = guess(frames["log"], frames.get("users"), frames.get("items"), named=named)
    paths = {role: str(p) for role, p in (("log", log), ("users", users), ("items", items)) if p}
    text = render(found, paths, frames["log"], samples["log"][1], online=online)
    _check(text, parse)
    _write(output, text)
    fields = [f["name"] for f in found.features]
    typer.echo(f"{output}: label {found.label[0]}, {len(fields)} features ({', '.join(fields)}); {len(found.left_out)} columns left out")
    typer.echo(f"next: read it once, then prerank validate {output}")


def render(found: Guess, paths: dict[str, str], log: pl.DataFrame, rows: float, online: bool = False) -> str:
    """The config as text; every guess has its reason beside it. rows: of the whole log, which the frame is a sample of."""
    stem = Path(paths["log"]).stem.replace(".", "-") or "prerank"
    return "\n".join(
        [
            f"# Written by `prerank init` from {len(log):,} rows of {Path(paths['log']).name}. Everything below is a guess: read it once.",
            "# What each key means: docs/config.md. Check it with `prerank validate`, then `prerank train --config` it.",
            f"name: {_scalar(stem)}",
            "",
            "data:",
            *(f"  {role}: {_scalar(path)}" for role, path in paths.items()),
            f"  user_id: {_scalar(found.user_id)}",
            f"  item_id: {_scalar(found.item_id)}",
            *_optional("time", found.time, "the column of the event's time; needed for a split by time"),
            *_optional("request", found.request, "the column that names the request; without it, lists are grouped by user"),
            "  labels:  # what is learned; one logit each",
            _commented(f"    {_scalar(found.label[0])}: {_mapping(found.label[1])}", _rate(found.label[1], log)),
            *(f"    # {_scalar(name)}: {_mapping(how)}" for name, how in found.others.items()),
            *_split(found.time is not None),
            "  width: 32  # of every field",
            "  features:",
            *_features(found),
            *_left_out(found),
            "",
            *_model(against := STREAM if online else _against_histories(found, log, rows)),
            "",
            "objective:",
            "  - {loss: logloss}",
            "",
            "training:",
            "  epochs: 10",
            "  batch_size: 2048",
            "  patience: 3  # epochs without a better validation metric before stopping",
            "  monitor: auc  # auc, gauc or logloss",
            "  average: 0.99  # what is validated and saved is the mean of the last steps' weights, without the noise of each",
            *_optimizer(against is None, _decay(found, log)),
            "  seed: 0",
            "",
            f"output: {_scalar('runs/' + stem)}",
            *(_online(stem, found.label[1]["column"]) if online else []),
            "",
        ]
    )


def _sample(path: Path, role: str) -> tuple[pl.DataFrame, float]:
    """The first rows of a table, and how many it has, of CSV files about. Raises DataError when it cannot be read or has none."""
    import polars as pl

    from prerank.data.errors import DataError
    from prerank.data.table import Table

    table, parts, rows = Table(path, role), [], 0
    for part in table.batches(dict(table.columns)):
        parts.append(part.frame)
        rows += len(part.frame)
        if rows >= SAMPLE:
            break
    if not rows:
        raise DataError(f"{role} '{path}': has no rows")
    return pl.concat(parts, how="vertical_relaxed").head(SAMPLE), table.rows if rows >= SAMPLE else rows


def _online(stem: str, column: str) -> list[str]:
    """The section of `prerank online`, and how its parts are started."""
    first, rows = f"runs/{stem}-first", f"{stem}-rows.db"
    return [
        "",
        f"# First: prerank train -c THIS --set output={_scalar(first)}. Then prerank online -c THIS publishes it, and learns.",
        f"# prerank events wait: with --kind {_scalar(column)}=10m, the label's column and how long it is waited for. docs/operations.md",
        "online:",
        f"  rows: {_scalar(f'sqlite:///{rows}')}  # what label waiting writes; redis:// and kafka:// alike",
        f"  start: {_scalar(first)}  # the first weights",
        "  checkpoint: 10s",
        f"  publish: {{folder: {_scalar(f'runs/{stem}-generations')}, every: 5s, deltas: 20}}  # what `prerank serve` follows",
    ]


def _optional(key: str, column: str | None, meaning: str) -> list[str]:
    return [f"  {key}: {_scalar(column)}" if column else f"  # {key}:  # {meaning}"]


def _split(by_time: bool) -> list[str]:
    kind = "time  # later rows are tested, as in life" if by_time else "random  # with a column for `time`, prefer kind: time"
    return ["  split:", f"    kind: {kind}", "    validation: 0.1  # fraction of the rows", "    test: 0.2"]


def _against_histories(found: Guess, log: pl.DataFrame, rows: float) -> str | None:
    """Why an id's history would not pay, or None: then it is proposed."""
    if rows * TRAIN > MEMORY:
        return f"left out: it holds all train rows in memory, and this log has about {rows / 1e6:,.0f} million rows"
    few = [column for column in (found.user_id, found.item_id) if len(log) < REPEATED * log[column].n_unique()]
    return f"left out: in the rows that were looked at, a {' or '.join(few)} hardly comes twice" if few else None


def _model(against: str | None) -> list[str]:
    history = f"# id_history: true  # {against}" if against else (
        "id_history: true  # and what the id did: on MovieLens-1M AUC .910 instead of .898 (docs/leaderboard.md); `online` refuses it"
    )  # fmt: skip
    return [
        "model:",
        "  name: inttower  # or dssm, history_mf, mf ...; further keys are the model's own options",
        "  hidden: [128, 64]",
        "  heads: 2",
        "  head_width: 32",
        "  dropout: 0.2",
        "  id_head: 64  # one more head, a vector for every id: features alone do not tell what two ids have in common",
        f"  {history}",
    ]


def _decay(found: Guess, log: pl.DataFrame) -> float:
    """The ids' decay: it counts each step, an id's rows come once in as many as there are ids, so that it falls with their number.

    0.12 / sqrt(users x items) lies between what validation chose on MovieLens-1M (0.075) and on the simulated shop (0.35).
    """
    users, items = (log[column].n_unique() for column in (found.user_id, found.item_id))
    return 0.12 / math.sqrt(users * items)


def _optimizer(history: bool, decay: float) -> list[str]:
    """Rates of each part as configs/ml1m/honest-inttower-history.yaml has found them, decays for as many ids as there are."""
    factors = _commented(f'      - {{match: "*history.factors", lr: 3.0e-4, l2: {2 * decay:.1e}}}', "hundreds are summed: smaller steps")
    table = f'      - {{match: "*ids.table", lr: 3.0e-3, l2: {decay:.1e}, count_power: 0.5}}'
    return [
        "  optimizer:",
        "    name: adam",
        "    lr: 5.0e-4  # of the layers; the ids want more, and their own decay",
        "    groups:  # by the parameters' names; the first match counts",
        '      - {match: "*ids.bias", lr: 3.0e-3, l2: 1.0e-6}',
        _commented(table, "0.12 / sqrt(users x items); worth tuning"),
        *([factors] if history else []),
        '      - {match: "embeddings.tables*", l2: 3.0e-5}',
    ]


def _features(found: Guess) -> list[str]:
    lines = []
    for side, title in (("user", "of the user"), ("context", "of the request; they join the user's tower"), ("item", "of the item")):
        of_side = [f for f in found.features if f["side"] == side]
        if of_side:
            lines.append(f"    # {title}")
        lines += [_commented(f"    - {_mapping({k: v for k, v in f.items() if k != 'why'})}", f["why"]) for f in of_side]
    return lines


def _left_out(found: Guess) -> list[str]:
    if not found.left_out:
        return []
    width = max(map(len, found.left_out))
    return ["  # left out:", *(f"  #   {column:<{width}}  {why}" for column, why in found.left_out.items())]


def _rate(how: dict[str, Any], log: pl.DataFrame) -> str:
    from prerank.cli.guess import positive

    return f"{positive(how, log).mean():.1%} of the rows"


def _commented(line: str, comment: str) -> str:
    return f"{line:<72}  # {comment}"


def _mapping(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{k}: {_scalar(v)}" for k, v in values.items()) + "}"


def _scalar(value: Any) -> str:
    """A value as YAML reads it back, quoted where it must be."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


def _check(text: str, parse: Any) -> None:
    """What is written must be accepted: a config that `validate` refuses at once would be an insult."""
    import yaml

    parse(yaml.safe_load(text), where="init").data.schema_()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    from prerank.data.errors import writing

    try:
        with writing(path):
            temporary.write_text(text)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
