"""Pictures of numbers with confidence intervals.

bands({name: [(x, value, low, high), ...]})     a curve a series with its interval as a band, x logarithmic
forest({label: {name: (value, low, high)}})     a point and a whisker a row, so that rows can be told apart or not
counts({name: [n, ...]}, bins)                  how a value is spread
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prerank.report.plots import legend_below, not_empty
from prerank.report.style import INK, MUTED, canvas, colour, marker, save

Point = tuple[float, float, float]  # value, low, high


def bands(
    series: Mapping[str, Sequence[Sequence[float]]],
    path: str | Path,
    *,
    x: str,
    metric: str,
    title: str,
    subtitle: str = "",
    marks: Sequence[int] = (),
) -> Path:
    """series: points (x, value, low, high) of each; marks: values of x that are dotted."""
    figure, axes = canvas(title, subtitle=subtitle, height=4.4)
    for i, (name, points) in enumerate(not_empty("bands", series).items()):
        xs, values, low, high = zip(*points, strict=True)
        axes.fill_between(xs, low, high, color=colour(i), alpha=0.18, linewidth=0)
        axes.plot(xs, values, color=colour(i), marker=marker(i), markersize=5, linewidth=2, label=name)
    axes.set_xscale("log")
    ticks = sorted({int(p[0]) for points in series.values() for p in points})
    axes.set_xticks(_apart(ticks), [f"{k:,}" for k in _apart(ticks)])
    axes.minorticks_off()
    for k in marks:
        if ticks[0] <= k <= ticks[-1]:
            axes.axvline(k, color=MUTED, linewidth=1, linestyle=":", zorder=1)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    axes.set_xlabel(x)
    axes.set_ylabel(metric)
    if len(series) > 1:
        legend_below(axes, len(series))
    return save(figure, path)


def forest(
    rows: Mapping[str, Mapping[str, Point]],
    path: str | Path,
    *,
    metric: str,
    title: str,
    subtitle: str = "",
    line: float | None = None,
    digits: int = 3,
) -> Path:
    """rows: label -> series -> (value, low, high); line: a value to compare with (0 for differences)."""
    names = list(dict.fromkeys(name for row in not_empty("forest", rows).values() for name in row))
    figure, axes = canvas(title, subtitle=subtitle, height=1.5 + (0.24 * len(names) + 0.06) * len(rows), width=7.6)
    step = 0.62 / len(names)
    if line is not None:
        axes.axvline(line, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    labelled: set[str] = set()
    for y, row in enumerate(rows.values()):
        for name, (value, low, high) in row.items():
            i = names.index(name)
            at = y + (i - (len(names) - 1) / 2) * step
            reach = [[max(value - low, 0)], [max(high - value, 0)]]
            axes.errorbar(value, at, xerr=reach, color=colour(i), marker=marker(i), markersize=6, elinewidth=1.6, capsize=3,
                          linestyle="none", label=None if name in labelled else name)  # fmt: skip
            text = f"{value:.{digits}f}"
            axes.annotate(text, (high, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85})  # fmt: skip
            labelled.add(name)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9.5, length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.14)
    axes.set_xlabel(metric)
    if len(names) > 1:
        legend_below(axes, len(names))
    return save(figure, path)


def counts(
    series: Mapping[str, Sequence[int]], bins: Sequence[float], path: str | Path, *, x: str, of: str, title: str, subtitle: str = ""
) -> Path:
    """series: numbers in each bin; bins: their edges, one more."""
    figure, axes = canvas(title, subtitle=subtitle, height=3.8)
    for i, (name, numbers) in enumerate(not_empty("counts", series).items()):
        axes.stairs(numbers, bins, color=colour(i), fill=True, alpha=0.25)
        axes.stairs(numbers, bins, color=colour(i), linewidth=1.8, label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(of)
    axes.margins(x=0.02)
    if len(series) > 1:
        legend_below(axes, len(series))
    return save(figure, path)


def _apart(ticks: Sequence[int]) -> list[int]:
    """Of many ticks on a logarithmic axis those whose labels do not touch: each 1.45 times the one before at least."""
    kept = [ticks[0]]
    for tick in ticks[1:]:
        if tick >= 1.45 * kept[-1]:
            kept.append(tick)
    return kept
