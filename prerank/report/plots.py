"""The house's pictures, each one function from numbers to a PNG; returns the path it wrote.

training_curve(history, path)        loss and a validation metric per epoch
roc_curve({name: (scores, labels)})  and reliability_curve({name: (probabilities, labels)})
latency({name: {k: (p50, p99)}})     milliseconds against candidates, both axes logarithmic
bars({name: Spread})                 a number a model, with its deviation over seeds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import ArrayLike

from prerank.metrics import auc, ece, reliability, roc
from prerank.report.style import INK, MUTED, canvas, colour, dress, legend, marker, save
from prerank.report.tables import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

T = TypeVar("T")
Latencies = Mapping[int, tuple[float, float]]  # candidates -> (p50, p99) in milliseconds


def training_curve(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    *,
    metric: str = "auc",
    title: str = "Training",
    subtitle: str = "",
) -> Path:
    """Training loss (dashed, left axis) and a validation metric (solid, right axis) for each epoch.

    history   for each model its epochs, each a mapping with `epoch`, `loss` and the metric, as history.jsonl has them
    """
    from matplotlib.ticker import MaxNLocator

    figure, losses = canvas(title, subtitle=subtitle, height=4.6)
    values = losses.twinx()
    dress(values)
    values.grid(False)
    values.spines["right"].set_visible(True)
    values.spines["right"].set_color("#b6bcc6")
    for i, (name, epochs) in enumerate(not_empty("training_curve", history).items()):
        x = [e["epoch"] for e in epochs]
        losses.plot(x, [e["loss"] for e in epochs], color=colour(i), linestyle=(0, (4, 2)), linewidth=1.4, alpha=0.75)
        scores = [e[metric] for e in epochs]
        values.plot(x, scores, color=colour(i), marker=marker(i), markersize=5, linewidth=2, label=name)
    losses.set_xlabel("epoch")
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses.set_ylabel("training loss (dashed)")
    values.set_ylabel(f"validation {_metric_name(metric)} (solid)")
    losses.margins(y=0.15)
    values.margins(y=0.15)
    legend_below(values, len(history))
    return save(figure, path)


def roc_curve(models: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str | Path, *, title: str = "ROC", subtitle: str = "") -> Path:
    """True against false positive rate of each model's (scores [n], labels [n]), with its AUC."""
    figure, axes = canvas(title, subtitle=subtitle, width=5.4, height=5.4)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    for i, (name, (scores, labels)) in enumerate(not_empty("roc_curve", models).items()):
        false, true = roc(scores, labels)
        axes.plot(false, true, color=colour(i), linewidth=2, label=f"{name}  AUC {auc(scores, labels):.4f}")
    _unit_square(axes, "false positive rate", "true positive rate")
    legend(axes, "lower right")
    return save(figure, path)


def reliability_curve(
    models: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | Path,
    *,
    bins: int = 15,
    title: str = "Calibration",
    subtitle: str = "",
) -> Path:
    """Observed against predicted rate of each model's (probabilities [n], labels [n]), in bins of equal frequency."""
    figure, axes = canvas(title, subtitle=subtitle, width=5.4, height=5.4)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="perfectly calibrated")
    for i, (name, (probabilities, labels)) in enumerate(not_empty("reliability_curve", models).items()):
        r = reliability(probabilities, labels, bins=bins, by="frequency")
        label = f"{name}  ECE {ece(probabilities, labels, bins=bins):.4f}"
        axes.plot(r.predicted, r.observed, color=colour(i), marker=marker(i), markersize=5, linewidth=1.8, label=label)
    _unit_square(axes, "predicted probability", "observed rate")
    legend(axes, "upper left")
    return save(figure, path)


def latency(models: Mapping[str, Latencies], path: str | Path, *, title: str = "Latency against candidates", subtitle: str = "") -> Path:
    """p50 (solid) and p99 (dashed) of each model, milliseconds against candidates, both axes logarithmic."""
    figure, axes = canvas(title, subtitle=subtitle, height=4.8)
    ks = sorted({k for measured in not_empty("latency", models).values() for k in measured})
    for i, (name, measured) in enumerate(models.items()):
        x = sorted(measured)
        p50, p99 = [measured[k][0] for k in x], [measured[k][1] for k in x]
        axes.plot(x, p50, color=colour(i), marker=marker(i), markersize=5.5, linewidth=2, label=name)
        axes.plot(x, p99, color=colour(i), linewidth=1.1, linestyle=(0, (4, 2)))
        axes.fill_between(x, p50, p99, color=colour(i), alpha=0.10, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ks, [f"{k:,}" for k in ks])
    axes.minorticks_off()
    milliseconds_ticks(axes.yaxis)
    axes.set_xlabel("candidates scored for one user")
    axes.set_ylabel("milliseconds, p50 (solid) and p99 (dashed)")
    legend(axes, "upper left")
    return save(figure, path)


def bars(
    values: Mapping[str, Spread | float],
    path: str | Path,
    *,
    metric: str,
    title: str,
    subtitle: str = "",
    digits: int = 4,
    start: float | None = None,
) -> Path:
    """One horizontal bar a model, its number beside it and a whisker of one standard deviation.

    start   where bars begin; a metric such as AUC says nothing from 0, so by default they begin below the least
            value by half the range, and the axis says so
    """
    spreads = {name: v if isinstance(v, Spread) else Spread(float(v), 0.0, 1) for name, v in not_empty("bars", values).items()}
    means = [s.mean for s in spreads.values()]
    reach = (max(means) - min(means)) or abs(means[0]) or 1.0
    if start is None:
        start = max(0.0, min(means) - 0.5 * reach)
    figure, axes = canvas(title, subtitle=subtitle, height=1.5 + 0.48 * len(spreads))
    for i, s in enumerate(spreads.values()):
        axes.barh(i, s.mean - start, left=start, height=0.62, color=colour(0), alpha=0.88)
        if s.n > 1:
            axes.errorbar(s.mean, i, xerr=s.std, color=INK, capsize=3, linewidth=1.2)
        text = f"{s.mean:.{digits}f} ± {s.std:.{digits}f}" if s.n > 1 else f"{s.mean:.{digits}f}"
        axes.annotate(text, (max(s.mean + s.std, start), i), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(spreads)), list(spreads))
    axes.tick_params(axis="y", labelcolor=INK, labelsize=10, length=0)
    axes.set_ylim(len(spreads) - 0.4, -0.6)  # from the top; a margin that grows with the bars is none
    axes.grid(False, axis="y")
    least, most = min(s.mean - s.std for s in spreads.values()), max(s.mean + s.std for s in spreads.values())
    axes.set_xlim(min(start, least), most + 0.45 * reach)  # room for the numbers
    axes.set_xlabel(metric if start == 0 else f"{metric} (axis starts at {start:.{digits}g})")
    return save(figure, path)


def legend_below(axes: Axes, entries: int) -> None:
    """A legend under the picture: two lines and two axes leave no free corner inside."""
    axes.get_figure().legend(loc="outside lower center", ncols=min(entries, 4), fontsize=9, frameon=False, labelcolor=INK)  # type: ignore[union-attr]


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def milliseconds_ticks(axis: Axis) -> None:
    """Ticks at 1, 2, 5 of each decade, so that a range of less than a decade has some too."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _metric_name(metric: str) -> str:
    return {"auc": "AUC", "gauc": "GAUC", "logloss": "LogLoss"}.get(metric, metric)


def not_empty(plot: str, series: Mapping[str, T]) -> Mapping[str, T]:
    if not series:
        raise ValueError(f"{plot}: needs at least one series, got none")
    return series
