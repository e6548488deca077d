"""meta.json: what a generation is, and all that a builder needs to rebuild its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from prerank.index import DType

FORMAT = 2  # of a generation's files; 1 knew nothing but MaxSim, and is read as such
SCORING = ("maxsim", "head", "ranker")


class GenerationError(ValueError):
    """A generation cannot be read or written; the message names the folder, the file and the rule."""


class Meta(msgspec.Struct, kw_only=True):
    """Written as it stands, by name; what is added later has a default, so that older generations are read."""

    number: int
    created: float  # seconds since 1970
    name: str
    model: dict[str, Any]  # the model's name and options, as in the config
    schema: dict[str, Any]
    fingerprint: str  # of the schema
    sizes: dict[str, int]
    groups: list[tuple[int, int, int, int]]  # user heads, item heads, width, objective
    objectives: list[str]
    dtype: DType
    items: int
    users: int
    calibrators: dict[str, dict[str, Any]]  # by objective
    torch: str
    files: dict[str, int]  # relative path -> bytes
    checksums: dict[str, int] = {}  # relative path -> CRC-32
    format: int = 1
    scoring: str = "maxsim"  # of given candidates: by MaxSim over item rows, by the model's head over item rows, or by a ranker
    user_vectors: bool = False  # whether they are stored
    synergy: dict[str, Any] | None = None  # CS3's settings, as in the config; None: a plain model
    space: str | None = None  # of a memory outside the generation: what its ids and vectors must mean

    @property
    def ranker(self) -> bool:
        """True when nothing was encoded: user and items meet in the model alone."""
        return self.scoring == "ranker"


def read(folder: Path) -> Meta:
    """Raises GenerationError."""
    try:
        written = (folder / "meta.json").read_bytes()
        _check_format(folder, msgspec.json.decode(written, type=_Format).format)
        meta = msgspec.json.decode(written, type=Meta)
    except FileNotFoundError:
        raise GenerationError(f"generation '{folder}': holds no meta.json; give a folder that `prerank export` wrote") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise GenerationError(f"generation '{folder}': meta.json cannot be read: {error}") from None
    if meta.scoring not in SCORING:
        raise GenerationError(f"generation '{folder}': scoring must be one of {', '.join(SCORING)}; got '{meta.scoring}'")
    return meta


class _Format(msgspec.Struct):
    format: int = 1


def _check_format(folder: Path, found: int) -> None:
    if not 1 <= found <= FORMAT:
        raise GenerationError(f"generation '{folder}': its format must be at most {FORMAT}, it is {found}: written by a newer version; "
                              "upgrade, or export it with this one")  # fmt: skip
