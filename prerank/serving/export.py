"""A trained model and its data -> a generation: every item is encoded once, so that no item network runs at a request.

A ranker cannot be: of it the items' columns are stored, and it runs for every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from prerank.batch import Columns, PreRanker
from prerank.data.columns import Writer, file_of
from prerank.data.encoder import Encoder
from prerank.data.encoder import save as save_encoders
from prerank.index import DTYPES, DType, pack, padded
from prerank.schema import Feature, Schema
from prerank.serving.calibration import CALIBRATORS, CalibrationError
from prerank.serving.generation import write
from prerank.serving.meta import FORMAT, GenerationError, Meta


class Exportable(Protocol):
    """What export reads of prepared data (`prerank.data.Dataset`)."""

    schema: Schema
    sizes: dict[str, int]
    encoders: dict[str, Encoder]

    @property
    def users(self) -> dict[str, NDArray[Any]]: ...
    @property
    def items(self) -> dict[str, NDArray[Any]]: ...
    @property
    def user_ids(self) -> pl.Series: ...
    @property
    def item_ids(self) -> pl.Series: ...


def export(dataset: Exportable, model: nn.Module, *, folder: str | Path, options: Mapping[str, Any], name: str = "prerank",
           calibrate_on: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None, calibrator: str = "platt", dtype: DType = "fp32",
           users: bool = False, synergy: Mapping[str, Any] | None = None, space: str | None = None, batch_size: int = 8192, keep: int = 3,
           progress: Callable[[int, int], None] | None = None, skipped: Callable[[str], None] | None = None) -> Path:  # fmt: skip
    """Write the next generation below `folder` and put it in force. Returns its folder.

    model          a PreRanker (`encode`, `head`) or a PairRanker (`pairs`); left in eval mode, on its device
    options        the model's name and options as the config has them: what the server's builder gets
    synergy        what CS3 adds to the model, as the config has it; None: nothing
    space          fingerprint of its memory, where that lies outside the model
    calibrate_on   validation logits and labels, [n, T] both; None: no calibrator, so no ordering by eCPM
    dtype          how item rows are stored: fp32 exact, bf16 half, int8 a quarter of the memory
    users          also store every user's vector, so that a known user who comes without features needs no user tower
    progress       called with (items done, items)
    skipped        told why an objective gets no calibrator; None: that is an error
    Raises GenerationError, CalibrationError, OSError (a full disk); then nothing is left of the new generation.
    """
    if dtype not in DTYPES:
        raise GenerationError(f"export: dtype must be one of {', '.join(DTYPES)}; got '{dtype}'")
    if calibrator not in CALIBRATORS:
        raise GenerationError(f"export: calibrator must be one of {', '.join(CALIBRATORS)}; got '{calibrator}'")
    if len(dataset.item_ids) == 0:
        raise GenerationError("export: the data has no items")
    calibrators = _calibrators(dataset.schema.objectives, calibrate_on, calibrator, skipped)
    scoring = _scoring(model)
    if scoring == "ranker" and (dtype != "fp32" or users):
        raise GenerationError(f"export: a ranker has no vectors, so dtype must be fp32 and users False; got {dtype}, {users}")
    groups = [] if scoring == "ranker" else [(g.user_heads, g.item_heads, g.width, g.objective) for g in _preranker(model).head.groups]
    model.eval()

    def fill(path: Path) -> Meta:
        _write_ids(path / "item_ids.parquet", dataset.item_ids, "item")
        _write_ids(path / "user_ids.parquet", dataset.user_ids, "user")
        (path / "users").mkdir()
        for f in dataset.schema.on("user"):
            if f.side == "user":
                np.save(path / "users" / file_of(f.name), dataset.users[f.name])
        (path / "encoders").mkdir()
        save_encoders(dataset.encoders, path / "encoders")
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}, path / "weights.safetensors")
        if scoring == "ranker":
            _check_weights(model)
            (path / "items").mkdir()
            for f in dataset.schema.on("item"):
                np.save(path / "items" / file_of(f.name), _item_column(dataset, f, slice(None)))
        else:
            _write_items(path, dataset, model, groups, dtype, batch_size, progress)
        if users:
            _write_users(path, dataset, model, groups, batch_size)
        return Meta(
            number=0, created=0.0, name=name, model=dict(options), schema=dataset.schema.model_dump(mode="json"),
            fingerprint=dataset.schema.fingerprint(), sizes=dict(dataset.sizes), groups=groups, objectives=list(dataset.schema.objectives),
            dtype=dtype, items=len(dataset.item_ids), users=len(dataset.user_ids), calibrators=calibrators,
            torch=str(torch.__version__), files={}, checksums={}, format=FORMAT, scoring=scoring, user_vectors=users,
            synergy=None if synergy is None else dict(synergy),
            space=space,
        )  # fmt: skip

    return write(folder, fill, keep=keep)


def item_columns(dataset: Exportable, rows: slice) -> Columns:
    """Item-side columns of some items; a feature that only the log knows is missing."""
    return {f.name: torch.from_numpy(np.array(_item_column(dataset, f, rows))) for f in dataset.schema.on("item")}


def user_columns(dataset: Exportable, rows: slice | NDArray[np.int64]) -> Columns:
    """User-side columns of some users as a request without context has them: what it would give is missing."""
    columns: Columns = {}
    for f in dataset.schema.on("user"):
        column = dataset.users[f.name][rows] if f.side == "user" else _missing(dataset, f, len(dataset.user_ids[rows]))
        columns[f.name] = torch.from_numpy(np.array(column))
    return columns


def _item_column(dataset: Exportable, feature: Feature, rows: slice) -> NDArray[Any]:
    column = dataset.items.get(feature.name)
    return _missing(dataset, feature, len(dataset.item_ids[rows])) if column is None else column[rows]


def _missing(dataset: Exportable, feature: Feature, rows: int) -> NDArray[Any]:
    return np.repeat(dataset.encoders[feature.name].missing(), rows, axis=0)


def _scoring(model: nn.Module) -> str:
    """How its candidates are scored: one of meta.SCORING."""
    if hasattr(model, "pairs"):
        return "ranker"
    if not hasattr(model, "encode") or not hasattr(model, "head"):
        raise GenerationError(f"export: {type(model).__name__} must be decoupled (encode, head) or score pairs (pairs) to be served")
    return "maxsim" if _preranker(model).head.maxsim else "head"


def _preranker(model: nn.Module) -> PreRanker:
    return model  # type: ignore[return-value]


def _calibrators(objectives: Sequence[str], on: tuple[NDArray[np.floating], NDArray[np.floating]] | None, kind: str,
                 skipped: Callable[[str], None] | None) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The state of each objective's calibrator."""
    if on is None:
        return {}
    logits, labels = (np.asarray(a).reshape(len(a), -1) for a in on)
    if logits.shape != labels.shape or logits.shape[1] != len(objectives):
        raise GenerationError(
            f"export: calibrate_on must be logits and labels [n, {len(objectives)}], got {list(logits.shape)} and {list(labels.shape)}"
        )
    states = {}
    for t, name in enumerate(objectives):
        try:
            states[name] = CALIBRATORS[kind].fit(logits[:, t], labels[:, t]).state()
        except CalibrationError as error:
            if skipped is None:
                raise
            skipped(f"objective '{name}' gets no calibrator: {error}")
    return states


def _write_ids(path: Path, ids: pl.Series, side: str) -> None:
    """Integers as Int64, text as text; one column `id`."""
    if ids.dtype.is_integer():
        try:
            ids = ids.cast(pl.Int64)
        except pl.exceptions.InvalidOperationError:
            raise GenerationError(f"export: {side} ids must fit in 64 bits, the largest is {ids.max()!r}") from None
    elif ids.dtype != pl.String:
        raise GenerationError(f"export: {side} ids must be integers or text, they are {ids.dtype}")
    if ids.null_count():
        raise GenerationError(f"export: {side} ids must not be missing, {ids.null_count()} are")
    pl.DataFrame({"id": ids}).write_parquet(path)


def _write_items(path: Path, dataset: Exportable, model: nn.Module, groups: list[tuple[int, int, int, int]], dtype: DType, batch_size: int,
                 progress: Callable[[int, int], None] | None) -> None:  # fmt: skip
    """Encode all items in batches and write their rows as they come, in bounded memory."""
    n, objectives = len(dataset.item_ids), len(dataset.schema.objectives)
    width = sum(hi * k for _, hi, k, _ in groups)
    device = next(model.parameters()).device
    bias, scales = np.zeros((n, objectives), np.float32), np.zeros(n, np.float32)
    with Writer(path / "items.npy", DTYPES[dtype], (n, padded(width, dtype))) as rows:
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            with torch.inference_mode():
                stored = _preranker(model).encode("item", {k: v.to(device) for k, v in item_columns(dataset, part).items()})
            flat = stored.flat().float().cpu().numpy()
            if flat.shape[1] != width:
                raise GenerationError(f"export: item vectors must be {width} wide as the head groups say, they are {flat.shape[1]}")
            if stored.bias is not None:
                bias[part] = stored.bias.float().cpu().numpy()
            wrong = np.flatnonzero(~(np.isfinite(flat).all(1) & np.isfinite(bias[part]).all(1)))
            if len(wrong):
                raise GenerationError(
                    f"export: item vectors must be finite, that of item {dataset.item_ids[start + int(wrong[0])]!r} is not"
                )
            packed, scale = pack(flat, dtype)
            rows.append(packed)
            if scale is not None:
                scales[part] = scale
            if progress is not None:
                progress(part.stop, n)
    np.save(path / "item_bias.npy", bias)
    if dtype == "int8":
        np.save(path / "item_scales.npy", scales)


def _write_users(path: Path, dataset: Exportable, model: nn.Module, groups: list[tuple[int, int, int, int]], batch_size: int) -> None:
    """Encode all users in batches, as a request that names one and gives nothing else would."""
    n, objectives = len(dataset.user_ids), len(dataset.schema.objectives)
    width = sum(hu * k for hu, _, k, _ in groups)
    device = next(model.parameters()).device
    bias = np.zeros((n, objectives), np.float32)
    with Writer(path / "user_vectors.npy", np.float32, (n, width)) as rows:
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            with torch.inference_mode():
                stored = _preranker(model).encode("user", {k: v.to(device) for k, v in user_columns(dataset, part).items()})
            flat = stored.flat().float().cpu().numpy()
            if not np.isfinite(flat).all():
                wrong = int(np.flatnonzero(~np.isfinite(flat).all(1))[0])
                raise GenerationError(f"export: user vectors must be finite, that of user {dataset.user_ids[start + wrong]!r} is not")
            rows.append(flat)
            if stored.bias is not None:
                bias[part] = stored.bias.detach().float().cpu().numpy()  # the head's own, of a model that learned
    np.save(path / "user_bias.npy", bias)


def _check_weights(model: nn.Module) -> None:
    for name, weight in model.state_dict().items():
        if not torch.isfinite(weight).all():
            raise GenerationError(f"export: weights must be finite, those of '{name}' are not")
