"""The search: trials drawn by optuna, trained as any run, judged on validation alone.

    tuned = tune(load("tune.yaml"))        # FOLDER: search.yaml, journal.log, trials.json, best.yaml, trials/NAME

Everything that is known stands in the folder's journal, and a trial's training has its own checkpoints. So a search that is killed at
any moment goes on with `resume` where it stood: the interrupted trial is taken up again at its last checkpoint. What is drawn
next depends on the seed and on the finished trials only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prerank.config import Config, ConfigError, dump
from prerank.data import Dataset, prepare
from prerank.datasets import resolve
from prerank.run import train
from prerank.training import Progress, Quiet, Result
from prerank.training.checkpoint import StaleCheckpointError, write_text
from prerank.training.lock import locked
from prerank.tuning.latency import p50
from prerank.tuning.space import Tune, current, varied

if TYPE_CHECKING:
    import optuna

WRITTEN = ("search.yaml", "journal.log", "trials.json", "best.yaml")
STARTUP = 5  # trials that finish before any is pruned
UNJUDGED = 3  # a trial's first 1/3 of the epochs: small rates, which often win, are behind at first
DRAWS = 10  # draws a trial, after which what is left of a small space is let be
AGAIN = 2  # how often a trial that took the process with it is tried


class _Pruned(Exception):
    """The trial is not worth going on."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Where a search ended.

    best     the best trial's values
    value    its validation metric
    trials   what trials.json holds, one mapping a trial
    """

    folder: Path
    config: Path
    best: dict[str, Any]
    value: float
    trials: list[dict[str, Any]]


def tune(settings: Tune, *, resume: bool = False, overwrite: bool = False, say: Callable[[str], None] = lambda line: None,
         progress: Callable[[], Progress] = Quiet, preparing: Callable[[str, float], None] | None = None) -> Tuned:  # fmt: skip
    """Search until `settings.trials` are done. Raises ConfigError, DataError, Interrupted, FolderInUseError.

    say        told a line after each trial
    progress   makes what shows a training
    """
    _need_optuna()
    base = settings.base()
    settings.check(base)
    folder = settings.folder(base)
    with locked(folder):
        _claim(folder, settings, base, resume, overwrite)
        dataset = prepare(resolve(base.data), progress=preparing)
        if not len(dataset.rows("validation")):
            raise ConfigError("tune: the data has no validation rows to judge a trial on; give data.split.validation")
        return _Search(settings, base, folder, dataset, say, progress).go()


class _Search:
    """The state of one call of `tune`."""

    def __init__(self, settings: Tune, base: Config, folder: Path, dataset: Dataset, say: Callable[[str], None],
                 progress: Callable[[], Progress]) -> None:  # fmt: skip
        self.settings, self.base, self.folder, self.dataset, self.say, self.progress = settings, base, folder, dataset, say, progress
        self.metric = base.training.monitor
        self.trials = int(min(settings.trials, math.prod(r.size for r in settings.space.values())))  # a small space has no more
        direction = "minimize" if self.metric == "logloss" else "maximize"
        self.study = _study(folder, settings, direction, base.training.epochs)

    def go(self) -> Tuned:
        self._take_up()
        while len(self._done()) < self.trials and len(ended := self._ended()) < DRAWS * self.trials:
            self.study.sampler = _sampler(self.settings, len(ended))
            self._try(self.study.ask())
        return self._tuned()

    def _ended(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that ended by themselves."""
        return [t for t in self.study.trials if t.state.name in ("COMPLETE", "PRUNED") or "why" in t.user_attrs]

    def _done(self) -> list[optuna.trial.FrozenTrial]:
        """Of these the ones that were new."""
        return [t for t in self._ended() if "equals" not in t.user_attrs]

    def _take_up(self) -> None:
        """Put trials that were under way when the process ended back in the queue; a new search begins with the settings as they are."""
        from optuna.trial import TrialState

        trials = self.study.trials
        for t in trials:
            if t.state == TrialState.RUNNING:
                if sum(t.params == other.params for other in trials) <= AGAIN:
                    self.study.enqueue_trial(t.params)
                self.study.tell(t.number, state=TrialState.FAIL)
        if not trials:
            values = {key: values.parameter(current(self.base, key)) for key, values in self.settings.space.items()}
            self.study.enqueue_trial({key: value for key, value in values.items() if value is not None})

    def _try(self, trial: optuna.Trial) -> None:
        """Draw, measure, train and tell. What was tried before is told again at once, and counts as no trial."""
        from optuna.trial import TrialState

        values = {key: r.suggest(trial, key) for key, r in self.settings.space.items()}
        same = next((t for t in self._done() if t.params == trial.params), None)
        if same is not None:
            self._again(trial, same)
            return
        start = time.monotonic()
        state, value, why = TrialState.FAIL, None, ""
        try:
            value = self._train(trial, varied(self.base, {**values, "output": str(self._place(trial.params))}))
            state = TrialState.COMPLETE
        except _Pruned as reason:
            state, why = TrialState.PRUNED, str(reason)
        except ValueError as error:  # a combination that cannot be built, or one that diverges
            why = str(error).splitlines()[0]
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        if why:
            trial.set_user_attr("why", why)
        self.study.tell(trial, value, state=state)
        self._keep_best_only()
        self._write()
        self._report(values, value, why)

    def _again(self, trial: optuna.Trial, same: optuna.trial.FrozenTrial) -> None:
        """Tell what is known of an equal trial, so that the sampler draws elsewhere."""
        trial.set_user_attr("equals", same.number)
        trial.set_user_attr("why", "as before")
        for key, excess in (same.constraints or {}).items():
            trial.set_constraint(key, excess)
        self.study.tell(trial, same.value if same.state.name == "COMPLETE" else None, state=same.state)

    def _train(self, trial: optuna.Trial, config: Config) -> float:
        budget = self.settings.latency
        if budget is not None:
            taken = p50(config.model, self.dataset, budget.candidates, budget.dtype)
            trial.set_user_attr("milliseconds", round(taken, 4))
            trial.set_constraint("milliseconds", taken - budget.milliseconds)
            if taken > budget.milliseconds:
                raise _Pruned(f"{taken:.3f} ms, over the budget of {budget.milliseconds:g}")
        sign = -1 if self.metric == "logloss" else 1
        best = -float("inf")

        def judged(entry: dict[str, Any]) -> None:
            nonlocal best
            best = max(best, sign * entry[f"validation_{self.metric}"])
            trial.report(sign * best, entry["epoch"])
            if self.settings.prune and trial.should_prune():
                raise _Pruned(f"below the median after epoch {entry['epoch']}")

        shown = self.progress()
        try:
            try:
                _, result = train(config, resume=True, progress=shown, each_epoch=judged)
            except StaleCheckpointError as error:  # half a trial of other data is worth nothing: again from the start
                self.say(f"{error}: begun again")
                _, result = train(config, overwrite=True, progress=shown, each_epoch=judged)
        finally:
            shown.close()
        return _value(result)

    def _place(self, params: dict[str, Any]) -> Path:
        """The trial's run folder, found again by what it tries."""
        name = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:10]
        return self.folder / "trials" / name

    def _keep_best_only(self) -> None:
        """Checkpoints go when a trial has ended, weights unless it is the best."""
        best = self._best()
        for place in (self.folder / "trials").glob("*"):
            shutil.rmtree(place / "checkpoint", ignore_errors=True)
            if best is None or place != self._place(best.params):
                (place / "model.safetensors").unlink(missing_ok=True)

    def _best(self) -> optuna.trial.FrozenTrial | None:
        complete = [t for t in self.study.trials if t.state.name == "COMPLETE" and t.value is not None]
        sign = -1 if self.metric == "logloss" else 1
        return max(complete, key=lambda t: sign * float(t.value or 0.0), default=None)

    def _values(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return {key: self.settings.space[key].decoded(value) for key, value in trial.params.items()}

    def _write(self) -> None:
        """trials.json and best.yaml, replaced whole."""
        write_text(self.folder / "trials.json", json.dumps([self._line(t) for t in self._done()], indent=1))
        best = self._best()
        if best is not None:
            said = f"# {self.metric} {best.value:.4f} on validation, the best of {len(self._done())} trials\n"
            write_text(self.folder / "best.yaml", said + dump(varied(self.base, self._values(best))))

    def _line(self, t: optuna.trial.FrozenTrial) -> dict[str, Any]:
        state = {"COMPLETE": "finished", "PRUNED": "pruned"}.get(t.state.name, "failed")
        return {"trial": t.number, "state": state, self.metric: t.value, **self._values(t), **t.user_attrs}

    def _report(self, values: dict[str, Any], value: float | None, why: str) -> None:
        done, best = self._done(), self._best()
        seconds = [float(t.user_attrs.get("seconds", 0.0)) for t in done]
        mean = sum(seconds) / max(len(seconds), 1)
        left = mean * (self.trials - len(done))
        found = why if value is None else f"{self.metric} {value:.4f}"
        top = "none finished yet" if best is None else f"best {best.value:.4f}"
        drawn = " ".join(f"{key.rpartition('.')[2]}={v:.4g}" if isinstance(v, float) else f"{key.rpartition('.')[2]}={v}"
                         for key, v in values.items())  # fmt: skip
        pace = f"{3600 / max(mean, 1e-3):,.0f} trials/h, {left / 60:.0f} min left"
        self.say(f"trial {len(done)} of {self.trials}: {found} ({top})  {drawn}  {seconds[-1]:.0f} s; {pace}")

    def _tuned(self) -> Tuned:
        self._write()
        best, done = self._best(), self._done()
        if best is None or best.value is None:
            why = next((t.user_attrs["why"] for t in reversed(done) if "why" in t.user_attrs), "unknown")
            raise ConfigError(f"tune: none of {len(done)} trials finished; the last one: {why}")
        return Tuned(self.folder, self.folder / "best.yaml", self._values(best), float(best.value), [self._line(t) for t in done])


def _study(folder: Path, settings: Tune, direction: Any, epochs: int) -> optuna.Study:
    """The study in the folder's journal, made when there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(folder / "journal.log")
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    median = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=epochs // UNJUDGED)
    pruner = median if settings.prune else optuna.pruners.NopPruner()
    return optuna.create_study(storage=storage, study_name="prerank", direction=direction, load_if_exists=True, pruner=pruner,
                               sampler=_sampler(settings, 0))  # fmt: skip


def _mend(journal: Path) -> None:
    """What a process that was killed may leave: half a line at the end, and optuna's own lock. The folder's lock is ours alone."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        text = journal.read_bytes()
        os.truncate(journal, text.rfind(b"\n") + 1)


def _sampler(settings: Tune, done: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011); it draws away from what breaks the budget."""
    import optuna

    return optuna.samplers.TPESampler(seed=settings.seed + done)


def _value(result: Result) -> float:
    assert result.best is not None
    return result.best


def _claim(folder: Path, settings: Tune, base: Config, resume: bool, overwrite: bool) -> None:
    """A folder with a search in it is continued, by the same settings, or overwritten only when that is asked for."""
    described = yaml.safe_dump({"tune": settings.model_dump(mode="json", exclude={"trials", "output"}), "run": yaml.safe_load(dump(base))},
                               sort_keys=False, allow_unicode=True)  # fmt: skip
    before = folder / "search.yaml"
    if before.exists() and not resume:
        if not overwrite:
            raise ConfigError(f"folder '{folder}': holds a search already; continue it with --resume, replace it with --overwrite, "
                              "or set output")  # fmt: skip
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "trials", ignore_errors=True)
    elif before.exists() and before.read_text() != described:
        raise ConfigError(f"folder '{folder}': its search was started with other settings ({before}); resume needs the same ones, "
                          "but for the number of trials")  # fmt: skip
    write_text(before, described)


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("tune: needs optuna, which is not installed: pip install 'prerank[tune]'") from None
