"""How every picture of the house looks: one palette, one frame, one way to save.

The colours are Okabe and Ito's (2008), told apart by all common kinds of colour blindness; lines also
differ in marker, so a grey print stays readable. Figures are made object by object, never through
pyplot, whose hidden current figure is not safe in a server or a thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED, GRID = "#1f2430", "#5b6270", "#e3e6eb"


def colour(index: int) -> str:
    """Colour of the n-th series; comes round after seven."""
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """Marker of the n-th series."""
    return MARKERS[index % len(MARKERS)]


def canvas(title: str, *, subtitle: str = "", width: float = 7.0, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with the house's frame and its one pair of axes; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr,call-arg]
    axes = figure.add_subplot()
    heading(axes, title, subtitle)
    dress(axes)
    return figure, axes


def heading(axes: Axes, title: str, subtitle: str = "") -> None:
    """Title flush left and bold, what it is measured on in grey beneath."""
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=24 if subtitle else 10)
    if subtitle:
        axes.annotate(subtitle, (0, 1), xytext=(0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=MUTED)


def dress(axes: Axes) -> None:
    """Thin frame, light grid behind the data, muted ticks."""
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b6bcc6")
    axes.tick_params(colors=MUTED, labelsize=9, length=3, which="both")
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(10)


def legend(axes: Axes, location: Literal["upper left", "lower right"]) -> None:
    """A legend on white, without a frame line."""
    axes.legend(loc=location, fontsize=9, frameon=True, framealpha=0.9, edgecolor="none", labelcolor=INK, handlelength=2.2)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the PNG under a temporary name, then rename: a half-written picture is never seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
