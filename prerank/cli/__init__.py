"""The command line: `prerank VERB ...`, one file a verb.

    data  init  validate  train  replay  online  up  ablate  tune  eval  consistency  teach  candidates  ensemble  prune  leaderboard
    export  predict  serve  rollback  events  abtest  score  demo

Exit status: 0 done; 1 a threshold does not hold (`consistency`; `abtest`'s sample ratio; one line "broken: ..." for each), or a bug of ours
(a traceback); 2 something to mend in what was given; 130 interrupted.
"""

from __future__ import annotations

import os
from typing import ClassVar

import typer

from prerank import __version__
from prerank.cli.verbs import Verb, Verbs

VERBS: dict[str, Verb] = {
    "demo": Verb("The whole walk in a few minutes: data, two models, a server, latencies, plots."),
    "data": Verb("Fetch and list the data sets the house knows."),
    "init": Verb("Write a commented config from a sample of your log."),
    "validate": Verb("Check a config and its data; report every problem at once."),
    "train": Verb("Train a model; a killed run continues where it stopped."),
    "replay": Verb("Run a log through a model in the order of time: predict, score, learn, observe."),
    "online": Verb("Learn from a stream of rows for as long as it runs; publish generations that servers follow."),
    "up": Verb("The whole system on one machine: a drifting world, server, event log, label waiting, trainer."),
    "ablate": Verb("Replay backbones with every subset of CS3 over seeds: what each part adds, paired, with a control."),
    "tune": Verb("Search settings on validation, within a latency budget."),
    "eval": Verb("Measure a trained run on rows it was not fitted to.", function="evaluate"),
    "consistency": Verb("Measure how a pre-ranker agrees with the ranking model; fail below thresholds."),
    "teach": Verb("Write a ranking model's scores and vectors beside the columns of the log."),
    "candidates": Verb("Make candidates of an earlier stage: a two-tower retrieves, what is known to the user is removed."),
    "ensemble": Verb("Join trained runs to one scorer, weighted on validation."),
    "prune": Verb("Cut a trained cold or fscd model to fewer fields, or to a latency budget."),
    "leaderboard": Verb("Train models over seeds and compare them: tables of quality, cost and paired tests."),
    "export": Verb("Encode all items of a run into a generation that can be served."),
    "predict": Verb("Score a Parquet file to a Parquet file, in bounded memory."),
    "serve": Verb("Answer scoring requests over HTTP."),
    "rollback": Verb("Put an earlier generation in force; servers that follow go back to it."),
    "events": Verb("Event logs: fill one from Parquet, look into one, make training rows of one."),
    "abtest": Verb("Compare the arms of an A/B test: rates, values, latency, with intervals over users."),
    "score": Verb("Score users against candidates from the command line."),
}


class _All(Verbs):
    catalogue: ClassVar[dict[str, Verb]] = VERBS


app = typer.Typer(
    cls=_All,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`prerank VERB --help` shows a verb's options and examples.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"prerank {__version__}")
        raise typer.Exit


@app.callback()
def _prerank(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback behind an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version and stop."),
) -> None:
    """The pre-ranking stage of a recommender cascade: train two-tower models on cascade logs, serve them in about a millisecond."""


def main() -> None:
    """The `prerank` command."""
    # Before torch is loaded: its threads wait asleep. Spinning ones stall each other on a busy machine (1.5 ms becomes 64).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app(prog_name="prerank")
