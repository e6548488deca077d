import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from prerank import report
from prerank.report.style import PALETTE

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.random(500), RNG.integers(0, 2, 500)
HISTORY = {"DSSM": [{"epoch": 1, "loss": 0.6, "auc": 0.7}, {"epoch": 2, "loss": 0.5, "auc": 0.75}]}

PICTURES = {
    "training_curve": lambda path, n: report.training_curve({f"m{i}": HISTORY["DSSM"] for i in range(n)}, path),
    "roc_curve": lambda path, n: report.roc_curve({f"m{i}": (SCORES + i * LABELS / 9, LABELS) for i in range(n)}, path),
    "reliability_curve": lambda path, n: report.reliability_curve({f"m{i}": (SCORES / (i + 1), LABELS) for i in range(n)}, path),
    "latency": lambda path, n: report.latency({f"m{i}": {100: (0.1 + i, 0.2 + i), 1000: (0.4 + i, 1 + i)} for i in range(n)}, path),
    "pareto": lambda path, n: report.pareto(
        {f"m{i}": (1.0 + i, report.Spread(0.8 + i / 99, 0.001, 3), f"k{i}") for i in range(n)}, path, metric="AUC", x="ms", title="t"
    ),
    "against": lambda path, n: report.against(
        {f"m{i}": {2.0: report.Spread(0.8 + i / 99, 0.001, 3), 8.0: report.Spread(0.81 + i / 99, 0.0, 1)} for i in range(n)},
        path,
        metric="AUC",
        x="heads",
        title="t",
    ),
    "clouds": lambda path, n: report.clouds(
        {f"m{i}": {"users": RNG.normal(size=(200, 2)), "items": RNG.normal(size=(200, 2)) + 4} for i in range(n)}, path, title="t"
    ),
    "bars": lambda path, n: report.bars({f"m{i}": report.Spread(0.8 + i / 99, 0.001, 3) for i in range(n)}, path, metric="AUC", title="t"),
}


def pixels(image, hexadecimal):
    """Pixels that are exactly of a colour."""
    return int((np.abs(image[..., :3] - np.array(to_rgb(hexadecimal))).max(-1) < 0.01).sum())


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_that_shows_its_series(name, tmp_path):
    path = PICTURES[name](tmp_path / "new" / "picture.png", 2)
    image = imread(path)
    assert image.shape[0] > 300
    assert image.shape[1] > 800
    if name == "bars":  # one colour for all bars
        assert (image[..., :3].std(axis=2) > 0.15).mean() > 0.05
    else:
        for colour in PALETTE[:2]:
            assert pixels(image, colour) > 200
        assert pixels(image, PALETTE[2]) == 0
    assert (image[:8, :, :3] == 1).all()  # nothing touches the edge
    assert (image[:, -8:, :3] == 1).all()
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_to_show_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: needs at least one series, got none"):
        PICTURES[name](tmp_path / "x.png", 0)
    assert list(tmp_path.iterdir()) == []


def test_one_point_and_equal_values_are_drawn(tmp_path):
    report.training_curve({"m": HISTORY["DSSM"][:1]}, tmp_path / "a.png")
    report.latency({"m": {1000: (0.2, 0.2)}}, tmp_path / "b.png")
    report.bars({"a": 0.5, "b": 0.5}, tmp_path / "c.png", metric="AUC", title="t")
    report.bars({"a": 0.0}, tmp_path / "d.png", metric="gain", title="t")
    report.bars({"a": -0.1, "b": 0.2}, tmp_path / "e.png", metric="gain", title="t")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = PICTURES["bars"](tmp_path / "x.png", 1)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        PICTURES["bars"](path, 2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_neither_importing_nor_drawing_touches_pyplot(tmp_path):
    code = (
        "import sys, prerank.report as r\n"
        "assert not {'matplotlib', 'rich'} & set(sys.modules), 'import is not free'\n"
        f"r.bars({{'a': .5}}, {str(tmp_path / 'x.png')!r}, metric='AUC', title='t')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
