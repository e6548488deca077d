"""Writes every generated part of the pages anew: tables from results/*.json, the settings from the package, the pictures.

    python -m docs.generate            write
    python -m docs.generate --check    only say which pages are out of date; exit status 1 when there are any

A page holds a generated part between two comments; what is not measured yet is left out of it:

    <!-- table:NAME -->
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs import ablations, agreement, boards, living, pictures, settings, sizes, streams, tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/config.md", "docs/rankers.md", "docs/leaderboard.md", "docs/tune.md",
         "docs/losses.md", "docs/cs3.md", "docs/ranktower.md", "docs/events.md", "docs/operations.md", "docs/online.md")
PARTS: dict[str, Callable[[], str]] = {**tables.TABLES, **boards.TABLES, **ablations.TABLES, **agreement.TABLES,
                                         **streams.TABLES, **sizes.TABLES, **living.TABLES, **settings.SECTIONS}
_PART = re.compile(r"(<!-- table:(?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The page with each part written anew. Raises ValueError for a part that nobody makes.

    >>> filled("a\\n<!-- table:x -->\\nold\\n<!-- end -->\\nb", {"x": lambda: "new"})
    'a\\n<!-- table:x -->\\nnew\\n<!-- end -->\\nb'
    """

    def one(found: re.Match[str]) -> str:
        if found["name"] not in parts:
            raise ValueError(f"part '{found['name']}': must be one of {', '.join(parts)}")
        body = parts[found["name"]]().strip()
        return f"{found[1]}{body}\n{found[3]}" if body else found[1] + found[3]

    return _PART.sub(one, text)


def stale() -> dict[Path, str]:
    """Pages that are not as they should be, with the text that they should have."""
    pages = {ROOT / name: (ROOT / name).read_text() for name in PAGES}
    return {path: new for path, old in pages.items() if (new := filled(old, PARTS)) != old}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a page is out of date")
    options = parser.parse_args()
    pages = stale()
    for path, text in pages.items():
        print(f"{path.relative_to(ROOT)}: {'out of date' if options.check else 'written'}")
        if not options.check:
            path.write_text(text)
    if options.check:
        sys.exit(bool(pages))
    for picture in [*pictures.draw(), *boards.draw(), *ablations.draw(), *living.draw()]:
        print(f"{picture.relative_to(ROOT)}: drawn")


if __name__ == "__main__":
    main()
