"""Pictures of points: quality against cost, a number against a setting, and vectors laid flat.

pareto({name: (milliseconds, Spread, kind)})   up and to the left is better; the frontier is drawn
against({name: {x: Spread}})                   a metric against a setting, with deviations
clouds({name: {"users": [n, 2], "items": ..}}) two-dimensional points, a panel a model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from prerank.report.plots import legend_below, milliseconds_ticks, not_empty
from prerank.report.style import INK, MUTED, canvas, colour, dress, heading, marker, save
from prerank.report.tables import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, Spread, str]
_SHIFTS = (-3, -12, 8, -23, 19, -34, 30, -45, 41, -56, 52, -67, 63)  # of a name from its point, in points
_NAME: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": INK, "zorder": 4}


def pareto(points: Mapping[str, Point], path: str | Path, *, metric: str, x: str, title: str, subtitle: str = "") -> Path:
    """Each model at (milliseconds, metric), a colour a kind; nothing is both faster and better than what lies on the line."""
    kinds = sorted({kind for _, _, kind in not_empty("pareto", points).values()}, reverse=True)  # the same colours in every picture
    crowd = max(0, len(points) - 12)
    figure, axes = canvas(title, subtitle=subtitle, width=8.2 + 0.1 * crowd, height=5.6 + 0.1 * crowd)
    for i, kind in enumerate(kinds):
        of_kind = [(ms, s) for ms, s, k in points.values() if k == kind]
        axes.errorbar([ms for ms, _ in of_kind], [s.mean for _, s in of_kind], yerr=[s.std for _, s in of_kind],
                      linestyle="none", marker=marker(i),
                      markersize=7, color=colour(i), ecolor=MUTED, elinewidth=1, capsize=2, label=kind, zorder=3)  # fmt: skip
    line = frontier({name: (ms, s.mean) for name, (ms, s, _) in points.items()})
    axes.step([points[n][0] for n in line], [points[n][1].mean for n in line], where="post", color=MUTED, linewidth=1.2,
              linestyle=(0, (4, 2)), label="best for its time", zorder=2)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    milliseconds_ticks(axes.xaxis)
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel(x)
    axes.set_ylabel(metric)
    _names(axes, {name: (ms, s.mean) for name, (ms, s, _) in points.items()})
    legend_below(axes, len(kinds) + 1)
    return save(figure, path)


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other is both faster and better than, fastest first.

    >>> frontier({"a": (1.0, 0.8), "b": (2.0, 0.7), "c": (3.0, 0.9)})
    ['a', 'c']
    """
    found: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][0], -points[n][1])):
        if not found or points[name][1] > points[found[-1]][1]:
            found.append(name)
    return found


def against(series: Mapping[str, Mapping[float, Spread]], path: str | Path, *, metric: str, x: str, title: str, subtitle: str = "") -> Path:
    """A metric against a setting (logarithmic, base 2), a line a series, a whisker of one standard deviation."""
    figure, axes = canvas(title, subtitle=subtitle, height=4.4)
    xs = sorted({value for one in not_empty("against", series).values() for value in one})
    for i, (name, one) in enumerate(series.items()):
        at = sorted(one)
        axes.errorbar(at, [one[v].mean for v in at], yerr=[one[v].std for v in at], color=colour(i), marker=marker(i), markersize=6,
                      linewidth=2, elinewidth=1.2, capsize=3, label=name)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(xs, [f"{v:g}" for v in xs])
    axes.minorticks_off()
    axes.margins(x=0.08, y=0.15)
    axes.set_xlabel(x)
    axes.set_ylabel(metric)
    if len(series) > 1:
        legend_below(axes, len(series))
    return save(figure, path)


def clouds(panels: Mapping[str, Mapping[str, NDArray]], path: str | Path, *, title: str, subtitle: str = "") -> Path:
    """Points [n, 2] of each kind, a panel a model; axes have no meaning, so they have no numbers."""
    n = len(not_empty("clouds", panels))
    figure, first = canvas(title, subtitle=subtitle, width=4.2 * n + 0.4, height=4.6)
    first.remove()
    for i, (name, kinds) in enumerate(panels.items()):
        axes = figure.add_subplot(1, n, i + 1)
        dress(axes)
        heading(axes, f"{title}: {name}" if n == 1 else name, subtitle if i == 0 else " ")
        for j, (kind, points) in enumerate(kinds.items()):
            axes.scatter(points[:, 0], points[:, 1], s=6, color=colour(j), marker=marker(j), linewidths=0,
                         label=kind if i == 0 else None)  # fmt: skip
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
    if n > 1:
        figure.suptitle(title, x=0.02, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    legend_below(figure.axes[0], len(next(iter(panels.values()))))
    return save(figure, path)


def _names(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """A name beside each point, moved up or down until it covers no other name and no point; a line leads to one that moved far."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    renderer, inside = figure.canvas.get_renderer(), axes.get_window_extent()
    places = axes.transData.transform(list(points.values()))  # pixels
    half = 5 * figure.dpi / 72
    halo = withStroke(linewidth=2.5, foreground="white")  # a line behind a name does not strike it out
    taken = [Bbox([(x - half, y - half), (x + half, y + half)]) for x, y in places]
    for name, at in sorted(points.items(), key=lambda p: -p[1][1]):
        found: list[tuple[float, int, int, Bbox]] = []  # what it would cover, and where
        for dy in _SHIFTS:
            for dx in (8, -8):
                text = axes.annotate(name, at, xytext=(dx, dy), ha="left" if dx > 0 else "right", **_NAME)
                box = text.get_window_extent(renderer)
                text.remove()
                outside = max(0.0, inside.x0 - box.x0, box.x1 - inside.x1) * box.height
                found.append((outside + sum(_area(Bbox.intersection(box, other)) for other in taken), dx, dy, box))
        _, dx, dy, box = min(found, key=lambda f: f[0])  # the first, so the nearest, of those that cover least
        lead = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3} if abs(dy) > 14 else None
        axes.annotate(name, at, xytext=(dx, dy), ha="left" if dx > 0 else "right", arrowprops=lead, path_effects=[halo], **_NAME)
        taken.append(box)


def _area(box: Any) -> float:
    return 0.0 if box is None else float(box.width * box.height)
