"""Epoch training: fit on train, choose the epoch on validation, resume exactly where a killed run stood.

    result = fit(model, objective, dataset, config.training, folder, resume=True)

The model ends with the best epoch's weights. Train and eval mode are set at every boundary, so that
a validation in between never leaves dropout off or BatchNorm frozen (the released IntTower code's
quirk, which `freeze_after_first_epoch` reproduces on purpose).
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prerank.config import ConfigError, Evaluation, monitored
from prerank.config import Training as Settings
from prerank.data import Dataset, ListLoader, Loader
from prerank.metrics import auc, gauc, logloss, sigmoid
from prerank.training import checkpoint
from prerank.training.averaging import Average
from prerank.training.device import configure, device_of
from prerank.training.optimizer import Optimizer
from prerank.training.pool import Pool
from prerank.training.predict import predict
from prerank.training.progress import Progress, Quiet
from prerank.training.step import DivergedError, Objective, train_step
from prerank.training.stop import Interrupted, stop_asked

EachEpoch = Callable[[dict[str, Any]], None]


@dataclass
class State:
    """Everything of a run that is not a tensor; it is the checkpoint's JSON."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the running epoch
    best: float | None = None
    best_epoch: int = 0
    worse: int = 0  # epochs since the best one
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # loss terms of the running epoch, summed over steps
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """How a training went. rows_per_cpu_second counts training alone, without validation. With lists a row is a candidate of one."""

    best_epoch: int
    best: float | None
    history: list[dict[str, Any]]
    rows: int
    seconds: float
    rows_per_second: float
    rows_per_cpu_second: float
    parameters: int


def fit(model: nn.Module, objective: Objective, dataset: Dataset, settings: Settings, folder: Path, *,
        resume: bool = False, progress: Progress | None = None, each_epoch: EachEpoch | None = None,
        evaluation: Evaluation | None = None) -> Result:  # fmt: skip
    """Train in `folder`, whose lock the caller holds. Raises DivergedError, Interrupted, ConfigError, and what `each_epoch` raises.

    resume       continue from the folder's checkpoint when there is one; without it, an old checkpoint is discarded
    each_epoch   told of every finished epoch (its line of history.jsonl), on resuming of those before, too
    evaluation   the candidate pool in which validation measures recall@K and ndcg@K each epoch when one of them is monitored
    """
    with stop_asked() as stop:
        run = _Run(model, objective, dataset, settings, folder, progress or Quiet(), evaluation)
        return run.go(resume, stop, each_epoch or (lambda entry: None))


class _Run:
    """The state of one call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        dataset: Dataset,
        settings: Settings,
        folder: Path,
        progress: Progress,
        evaluation: Evaluation | None,
    ) -> None:
        if settings.freeze_after_first_epoch and getattr(model, "remembers", False):
            raise ConfigError("training.freeze_after_first_epoch: a model with histories does not take it: outside training mode a train "
                              "row's score holds the row's own label")  # fmt: skip
        if getattr(model, "needs_hidden", False):
            raise ConfigError("synergy.cms.ranker: epochs have no ranking model beside them; train with `prerank replay`, or give "
                              "synergy.cms.column")  # fmt: skip
        self.memories = bool(getattr(model, "memories", ()))
        if settings.freeze_after_first_epoch and self.memories:
            raise ConfigError("training.freeze_after_first_epoch: a model with synergy.cts or cms does not take it: running statistics "
                              "tell a row of its own label")  # fmt: skip
        if settings.rehearsal:
            raise ConfigError("training.rehearsal: epochs learn from every row again already, and do not take it; it belongs to "
                              f"`prerank replay`; got {settings.rehearsal}")  # fmt: skip
        configure(settings)
        self.device = device_of(settings)
        self.model = model.to(self.device)
        self.objective, self.dataset, self.settings, self.folder, self.progress = objective, dataset, settings, folder, progress
        remember = getattr(model, "remember", None)
        if remember is not None:
            remember(*(torch.from_numpy(column) for column in dataset.interactions("train")))
        counts = dataset.counts if settings.lists is None else dataset.counts_every
        self.counts = {name: torch.from_numpy(np.array(c)) for name, c in counts.items()}
        self.weights = _own_parameters(objective, self.device)
        self.optimizer = Optimizer(self.model, settings.optimizer, self.counts, settings.batch_size, apart=self.weights)
        self.loader = self._loader()
        self.average = Average(self.model, settings.average, frozenset(self.optimizer.rowwise.parameters if self.optimizer.rowwise else ()))
        self.validation_rows = dataset.rows("validation")
        self.pool = Pool(dataset, "validation", evaluation) if evaluation is not None and len(self.validation_rows) else None
        self.state = State()
        self.best_weights: dict[str, Tensor] = {}

    def _loader(self) -> Loader | ListLoader:
        """Train impressions one by one, or lists of candidates, of which it is said what they hold."""
        s = self.settings
        if s.lists is None:
            return Loader(self.dataset, self.dataset.rows("train"), s.batch_size, shuffle=s.shuffle, seed=s.seed, dedup=s.dedup)
        loader = ListLoader(self.dataset, "train", s.lists, s.batch_size, seed=s.seed, shuffle=s.shuffle != "none", dedup=s.dedup)
        for note in loader.sampler.said():
            self.progress.say(note)
        return loader

    def go(self, resume: bool, stop: list[int], each_epoch: EachEpoch) -> Result:
        torch.manual_seed(self.settings.seed + 1_000_003)  # dropout; the weights were drawn before
        if resume:
            self._load()
        for entry in self.state.history:
            each_epoch(entry)
        while self.state.epoch < self.settings.epochs and self.state.worse < self.settings.patience:
            self._epoch(stop)
            self._judge()
            self._save()
            each_epoch(self.state.history[-1])
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        checkpoint.save_weights(self.folder / "model.safetensors", self.model.state_dict())
        self.progress.close()
        s = self.state
        return Result(s.best_epoch, s.best, s.history, s.rows, s.seconds, s.rows / max(s.seconds, 1e-9),
                      s.rows / max(s.cpu_seconds, 1e-9), sum(p.numel() for p in self.model.parameters()))  # fmt: skip

    def _epoch(self, stop: list[int]) -> None:
        """The rest of the running epoch, from the step where it stands."""
        state, steps = self.state, len(self.loader)
        self.model.train(not (self.settings.freeze_after_first_epoch and state.epoch > 0))
        if self.memories and state.step == 0:
            self.model.reset_memory()  # type: ignore[operator]
        sums = {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in state.sums.items()}
        mark = time.monotonic(), time.process_time()
        saved = mark[0]

        def clock() -> None:
            nonlocal mark
            now = time.monotonic(), time.process_time()
            state.seconds += now[0] - mark[0]
            state.cpu_seconds += now[1] - mark[1]
            state.sums = {name: float(v) for name, v in sums.items()}
            mark = now

        for batch in self.loader.epoch(state.epoch, start=state.step):
            try:
                values = train_step(self.model, self.objective, self.optimizer, batch.to(self.device),
                                    precision=self.settings.precision, clip=self.settings.clip,
                                    observe=self.model.observe if self.memories else None)  # type: ignore[arg-type]  # fmt: skip
            except DivergedError as error:
                where = f"epoch {state.epoch + 1}, batch {state.step + 1}"
                raise DivergedError(f"training diverged in {where}: {error}; try a lower lr or clip") from None
            self.average.update()
            for name, value in values.items():
                sums[name] = sums[name] + value if name in sums else value.double()
            rows = batch.rows if self.settings.lists is None else int(batch.where.sum())
            state.step += 1
            state.rows += rows
            self.progress.step(state.epoch + 1, state.step, steps, rows, float(values["loss"]))
            if stop or time.monotonic() - saved > self.settings.checkpoint_seconds:
                clock()
                self._save()
                saved = time.monotonic()
            if stop:
                self.progress.close()
                name = signal.Signals(stop[0]).name
                raise Interrupted(f"stopped by {name} in epoch {state.epoch + 1}, step {state.step} of {steps}; continue with --resume")
        clock()

    def _judge(self) -> None:
        """Close the epoch: mean losses, validation metrics, and whether it is the best so far."""
        state, steps = self.state, max(self.state.step, 1)
        entry: dict[str, Any] = {"epoch": state.epoch + 1, **{name: v / steps for name, v in state.sums.items()}}
        self._fill_cold_rows()
        with self.average.applied():
            self._fill_cold_rows()
            better = self._compare(entry)
        entry["rows_per_second"] = round(state.rows / max(state.seconds, 1e-9))
        state.history.append(entry)
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        checkpoint.write_text(self.folder / "history.jsonl", "".join(json.dumps(e) + "\n" for e in state.history))
        numbers = "  ".join(f"{k} {v:.4f}" for k, v in entry.items() if isinstance(v, float))
        self.progress.say(f"epoch {state.epoch}  {numbers}  {entry['rows_per_second']:,} rows/s{'  best' if better else ''}")

    def _fill_cold_rows(self) -> None:
        fill_cold_rows = getattr(self.model, "fill_cold_rows", None)
        if fill_cold_rows is not None:
            fill_cold_rows(self.counts)

    def _compare(self, entry: dict[str, Any]) -> bool:
        """Validate the weights as they are, and keep them when they are the best so far."""
        state, better = self.state, True
        if len(self.validation_rows):
            entry |= self._validate()
            value = entry[f"validation_{self.settings.monitor}"]
            sign = -1 if self.settings.monitor == "logloss" else 1
            better = state.best is None or sign * value > sign * state.best
            state.best = value if better else state.best
        if better:
            state.best_epoch, state.worse = state.epoch + 1, 0
            self.best_weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            state.worse += 1
        return better

    def _validate(self) -> dict[str, float]:
        loader = Loader(self.dataset, self.validation_rows, self.settings.eval_batch_size, shuffle="none")
        logits, labels = predict(self.model, loader.epoch(0), self.device)
        z, y = logits[:, 0], labels[:, 0] > 0
        found = {"validation_auc": float(auc(z, y)), "validation_logloss": float(logloss(sigmoid(z), y))}
        if self.settings.monitor == "gauc":
            found["validation_gauc"] = float(gauc(z, y, self.dataset.user_row[self.validation_rows]).value)
        if self.pool is not None and monitored(self.settings.monitor):
            found |= {f"validation_{name}": m.value for name, m in self.pool.measure(self.model, self.device).metrics.items()}
        return found

    def _save(self) -> None:
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best_weights.items()}
        tensors |= {f"optimizer/{k}": v for k, v in self.optimizer.tensors().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.tensors().items()}
        tensors |= {f"objective/{k}": v for k, v in self.weights.items()}
        tensors["rng/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        state = asdict(self.state) | {"dataset": self.dataset.fingerprint}
        checkpoint.save(self.folder / "checkpoint", tensors, state)

    def _load(self) -> None:
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None:
            return
        state = dict(found.state)
        if (fingerprint := state.pop("dataset")) != self.dataset.fingerprint:
            raise checkpoint.StaleCheckpointError(
                f"run folder '{self.folder}': its checkpoint was trained on other data (fingerprint {fingerprint}, now "
                f"{self.dataset.fingerprint}); start again without --resume"
            )
        try:
            self.model.load_state_dict(found.part("model"))
        except RuntimeError as error:
            why = str(error).splitlines()[1].strip()
            raise ConfigError(f"run folder '{self.folder}': its checkpoint is of another model: {why}") from None
        self.best_weights = {k: v.to(self.device) for k, v in found.part("best").items()}
        self.optimizer.load_tensors(found.part("optimizer"))
        self.average.load_tensors(found.part("average"))
        for name, value in found.part("objective").items():
            self.weights[name].data.copy_(value)
        torch.set_rng_state(found.tensors["rng/cpu"])
        if "rng/cuda" in found.tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(found.tensors["rng/cuda"], self.device)
        self.state = State(**state)
        self.progress.say(f"resumed after epoch {self.state.epoch}, step {self.state.step}")


def _own_parameters(objective: Objective, device: torch.device) -> dict[str, nn.Parameter]:
    """What the objective's terms learn themselves (uncertainty weights), on the device; nothing for a plain function."""
    own: dict[str, nn.Parameter] = getattr(objective, "parameters", dict)()
    for parameter in own.values():
        parameter.data = parameter.data.to(device)
    return own
