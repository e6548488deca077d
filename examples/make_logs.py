"""Three small CSV files to try the package with: impressions, users and items of a simulated shop.

    python examples/make_logs.py shop

writes shop/impressions.csv (one row an impression: who, what, when, where, clicked or not), shop/users.csv and shop/items.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from prerank.config import Data
from prerank.datasets import converted

OPTIONS = {"users": 2000, "items": 1000, "impressions": 200_000, "seed": 1}
HIDDEN = ["conversion", "click_delay_ms", "conversion_delay_ms", "bid"]  # the first try has one label


def main(folder: Path) -> None:
    tables = converted(Data(recipe="simulated", options=OPTIONS))
    folder.mkdir(parents=True, exist_ok=True)
    for table, name in (("log", "impressions"), ("users", "users"), ("items", "items")):
        frame = pl.read_parquet(tables / f"{table}.parquet").drop(HIDDEN, strict=False)
        frame.write_csv(folder / f"{name}.csv")
        print(f"{folder / name}.csv: {len(frame):,} rows, columns {', '.join(frame.columns)}")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "shop"
    if given.startswith("-"):
        sys.exit("usage: python examples/make_logs.py [FOLDER]")
    main(Path(given))
