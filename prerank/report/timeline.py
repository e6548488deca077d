"""A metric over time: sliding windows of a stream, and where its test rows begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prerank.report.plots import not_empty
from prerank.report.style import MUTED, canvas, colour, legend, save


def over_time(
    series: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    *,
    metric: str = "auc",
    since: int | None = None,
    title: str = "Replay",
    subtitle: str = "",
) -> Path:
    """A line a name: the metric of each window at the window's last moment. Returns the path it wrote.

    series   for each name its windows, each a mapping with `ts` (ms) and the metric
    since    ms: from here on stand the test rows
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    figure, axes = canvas(title, subtitle=subtitle, height=4.6)
    for i, (name, windows) in enumerate(not_empty("over_time", series).items()):
        when = [_day(date2num, w["ts"]) for w in windows]
        axes.plot(when, [w[metric] for w in windows], color=colour(i), linewidth=2, label=name)
    if since is not None:
        axes.axvline(_day(date2num, since), color=MUTED, linestyle=":", linewidth=1.4)
        axes.annotate("test rows", (_day(date2num, since), 1), xycoords=("data", "axes fraction"), xytext=(4, -4),
                      textcoords="offset points", va="top", fontsize=9, color=MUTED)  # fmt: skip
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel({"auc": "AUC", "gauc": "GAUC", "logloss": "LogLoss"}.get(metric, metric))
    axes.margins(y=0.15)
    legend(axes, "lower right")
    return save(figure, path)


def _day(date2num: Any, ms: int) -> float:
    return float(date2num(datetime.fromtimestamp(ms / 1000, UTC)))
