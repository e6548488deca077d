"""One self-contained HTML page: no script, no file beside it, no address that it loads from; pictures are inside.

    html = page("Consistency", ["<p>...</p>", table(Table(...)), picture("plot.png", "what it shows")])
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from prerank.report.style import GRID, INK, MUTED, PALETTE
from prerank.report.tables import Table

GOOD, BAD = PALETTE[2], PALETTE[1]
_CLASS = {True: ' class="number"', False: ""}
_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #fff; color: {INK}; font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }}
h1 {{ font-size: 25px; line-height: 1.25; margin: 0 0 4px; }}
h2 {{ font-size: 19px; margin: 38px 0 8px; padding-top: 14px; border-top: 1px solid {GRID}; }}
p, ul {{ margin: 6px 0 10px; max-width: 78ch; }}
.lead {{ color: {MUTED}; max-width: none; }}
.verdict {{ border-left: 5px solid; padding: 8px 14px; margin: 16px 0; background: #f7f8fa; max-width: none; }}
.good {{ border-color: {GOOD}; }}
.bad {{ border-color: {BAD}; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 10px 0 6px; }}
th, td {{ padding: 5px 12px 5px 0; text-align: left; border-bottom: 1px solid {GRID}; vertical-align: baseline; white-space: nowrap; }}
th {{ font-weight: 600; border-bottom: 2px solid {INK}; }}
th.number, td.number {{ text-align: right; padding: 5px 5px 5px 9px; }}
td small {{ display: block; white-space: normal; color: {MUTED}; font-size: 12px; line-height: 1.35; max-width: 52ch; }}
.one {{ max-width: 760px; margin: 14px 0; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 18px; margin: 14px 0; }}
figure {{ margin: 0; }}
img {{ width: 100%; height: auto; display: block; border: 1px solid {GRID}; border-radius: 6px; }}
figcaption {{ color: {MUTED}; font-size: 13.5px; margin-top: 4px; }}
@media (max-width: 520px) {{ .pictures {{ grid-template-columns: 1fr; }} main {{ padding: 18px 14px; }} }}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document; parts are HTML."""
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts)
            + "\n</main>\n</body>\n</html>\n")  # fmt: skip


def table(given: Table, *, under: Sequence[str] = ()) -> str:
    """A table; `under`: a sentence beneath the first cell of each row."""
    heads, right, rows = given.headings(), given.right(), given.cells()
    head = "".join(f"<th{_CLASS[r]}>{escape(text)}</th>" for r, text in zip(right, heads, strict=True))
    lines = []
    for i, cells in enumerate(rows):
        said = f"<small>{escape(under[i])}</small>" if under else ""
        first, *others = (f"<td{_CLASS[r]}>{escape(cell)}" for r, cell in zip(right, cells, strict=True))
        lines.append(f"<tr>{first}{said}</td>{''.join(f'{cell}</td>' for cell in others)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def picture(path: str | Path, caption: str) -> str:
    """A PNG, inside the page."""
    inside = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    said = escape(caption)
    return f'<figure><img alt="{said}" src="data:image/png;base64,{inside}"><figcaption>{said}</figcaption></figure>'


def pictures(figures: Sequence[str]) -> str:
    """Side by side where there is room."""
    return f'<div class="pictures">\n{chr(10).join(figures)}\n</div>'
