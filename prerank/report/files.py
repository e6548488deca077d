"""A report's files: the same name in several forms.

    write("report", "abtest", {"json": ..., "md": ..., "html": ...})      report/abtest.json, abtest.md, abtest.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prerank.training.checkpoint import write_text


def write(folder: str | Path, name: str, texts: Mapping[str, str]) -> list[Path]:
    """Each text by its kind, in a folder that is made; returns the paths."""
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    paths = [at / f"{name}.{kind}" for kind in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths
