import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from prerank import report
from prerank.report.style import PALETTE

PICTURES = {
    "bands": lambda path, n: report.bands(
        {f"m{i}": [(k, 0.1 * i + k / 200, 0.1 * i + k / 220, 0.1 * i + k / 180) for k in (1, 3, 10, 100)] for i in range(n)},
        path, x="K", metric="overlap@K", title="t", marks=[10]),
    "forest": lambda path, n: report.forest(
        {label: {f"m{i}": (0.5 + i / 10, 0.4 + i / 10, 0.6 + i / 10) for i in range(n)} for label in ("all", "cold users", "tail items")},
        path, metric="overlap@10", title="t", line=0.5),
    "counts": lambda path, n: report.counts(
        {f"m{i}": [1 + i, 5, 9, 2] for i in range(n)}, [0, 0.25, 0.5, 0.75, 1], path, x="overlap", of="requests", title="t"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_that_shows_its_series(name, tmp_path):
    image = imread(PICTURES[name](tmp_path / "picture.png", 2))
    for colour in PALETTE[:2]:
        assert (np.abs(image[..., :3] - np.array(to_rgb(colour))).max(-1) < 0.01).sum() > 100
    assert (image[:8, :, :3] == 1).all()  # nothing touches the edge
    assert (image[:, -8:, :3] == 1).all()


@pytest.mark.parametrize("name", PICTURES)
def test_without_series_it_is_said(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: needs at least one series, got none"):
        report.counts({}, [0, 1], tmp_path / "p.png", x="x", of="y", title="t") if name == "counts" else (
            report.bands({}, tmp_path / "p.png", x="x", metric="y", title="t") if name == "bands"
            else report.forest({}, tmp_path / "p.png", metric="y", title="t"))  # fmt: skip
