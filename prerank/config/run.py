"""Model, objective, training: a run, whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prerank.config.data import Data
from prerank.config.model import Model
from prerank.config.online import Online
from prerank.config.stages import Evaluation, Lists, monitored
from prerank.config.strict import Strict
from prerank.config.synergy import Synergy


class TermConfig(BaseModel):
    """One term of the objective; further keys are the loss's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    loss: str
    label: str | None = Field(None, description="label (objective) it sees; default: the first")
    weight: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Beta = Annotated[float, Field(ge=0, lt=1)]


class ParameterGroup(Strict):
    """Parameters whose name matches get their own rate and decay; the first match counts."""

    match: str = Field(description="pattern over parameter names, e.g. '*ids.table*' or '*bias*'")
    lr: float | None = Field(None, gt=0)
    l2: float | None = Field(None, ge=0, description="weight of the squared norm added to the gradient")
    count_power: float | None = Field(None, description="an embedding row's l2 grows with (its train count / mean count) ** this")
    rowwise: bool = Field(False, exclude_if=lambda given: not given,
                          description="tables of ids: row-wise Adagrad at this rate, whatever their size")  # fmt: skip

    @model_validator(mode="after")
    def _rowwise_has_no_decay(self) -> ParameterGroup:
        if self.rowwise and (self.lr is None or self.l2 or self.count_power is not None):
            raise ValueError(f"rowwise: needs lr, and takes neither l2 nor count_power; group '{self.match}'")
        return self


class Optimizer(Strict):
    name: Literal["adam", "adamw", "adagrad", "ftrl"] = "adam"
    lr: float = Field(1e-3, gt=0)
    l2: float = Field(0.0, ge=0, description="adam, adagrad: added to the gradient; adamw: decoupled decay; ftrl: its lambda 2")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    beta: float = Field(1.0, gt=0, description="ftrl: added to the root of a coordinate's summed squared gradients")
    l1: float = Field(0.0, ge=0, description="ftrl: its lambda 1, against the sum of all rows' gradients; weights with less evidence are 0")
    groups: tuple[ParameterGroup, ...] = ()
    sparse_from: int = Field(500_000, ge=1, description="embedding tables with at least so many rows are updated row-wise")
    sparse_lr: float = Field(0.02, gt=0, description="row-wise Adagrad's rate for such tables (ftrl: they keep ftrl)")

    @model_validator(mode="after")
    def _of_its_kind(self) -> Optimizer:
        if self.name != "ftrl" and self.l1:
            raise ValueError(f"l1: only ftrl has it; got {self.l1} with {self.name}")
        if self.name == "ftrl" and any(g.count_power is not None or g.rowwise for g in self.groups):
            raise ValueError("groups: ftrl has a rate for each coordinate and takes neither count_power nor rowwise")
        return self


class Training(Strict):
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(2048, ge=1)
    eval_batch_size: int = Field(16384, ge=1)
    optimizer: Optimizer = Optimizer()
    seed: int = Field(0, ge=0, lt=2**32)
    patience: int = Field(3, ge=1, description="epochs without a better validation metric before stopping")
    monitor: str = Field("auc", description="validation metric that chooses the epoch: auc, gauc, logloss, recall@K, ndcg@K")
    clip: float | None = Field(None, gt=0, description="gradient norm is clipped to this")
    average: Beta | None = Field(None, description="decay of averaged weights, which are then validated, kept and served; null: none")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast")
    matmul: Literal["auto", "highest", "medium"] = Field(
        "auto", description="products of fp32 numbers; medium: oneDNN, twice as fast on AMD, rounded to bf16 on a CPU with AMX; "
        "auto: medium where it does not round, else highest"
    )  # fmt: skip
    threads: int | None = Field(None, ge=1, le=1024, description="torch threads; default: torch's own")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    dedup: bool = Field(True, description="each distinct user and item is encoded once a batch")
    shuffle: Literal["auto", "full", "blocks", "none"] = Field("auto", description="blocks: bounded memory for logs larger than it")
    checkpoint_seconds: float = Field(120.0, gt=0, description="seconds between checkpoints inside an epoch")
    freeze_after_first_epoch: bool = Field(False, description="LEAKY reproduction only: the released code's eval-mode quirk")
    rehearsal: int = Field(0, ge=0, exclude_if=lambda given: given == 0,
                           description="one pass: so many past batches, drawn at random, are learned from again a step")  # fmt: skip
    lists: Lists | None = Field(None, description="learn from lists of candidates, not from single impressions; batch_size counts lists")

    @field_validator("monitor")
    @classmethod
    def _known(cls, value: str) -> str:
        monitored(value)
        return value


class Config(Strict):
    """A run, whole."""

    name: str = "prerank"
    data: Data = Data()
    model: Model = Model()
    synergy: Synergy | None = Field(None, description="CS3: layers that cycle, and what each tower remembers")
    objective: tuple[TermConfig, ...] = (TermConfig(loss="logloss"),)
    training: Training = Training()
    evaluation: Evaluation | None = Field(None, description="the candidate pool of recall@K and ndcg@K")
    online: Online | None = Field(None, description="learning from a stream of rows: prerank online")
    output: str = Field("runs/prerank", description="folder of the run: config, checkpoints, metrics")
    leaky: str | None = Field(None, description="why this protocol leaks; set, every table says LEAKY")

    @model_validator(mode="after")
    def _monitors_what_it_measures(self) -> Config:
        wanted = monitored(self.training.monitor)
        if wanted and (self.evaluation is None or wanted[1] not in self.evaluation.at):
            at = "there is none" if self.evaluation is None else f"it is {list(self.evaluation.at)}"
            raise ValueError(f"training.monitor: '{self.training.monitor}' needs {wanted[1]} in evaluation.at; {at}")
        return self
