"""The ablations that the repository brings, and the configs of replays with CS3, can be read and built."""

from __future__ import annotations

from pathlib import Path

import pytest

from prerank import build
from prerank.ablation import load
from prerank.ablation.plan import CONTROL, PLAIN
from prerank.config import load as load_config
from tests.leaderboard.test_boards import described

PLANS = sorted(Path("configs/ablations").glob("*.yaml"))
CONFIGS = sorted(Path("configs").glob("*/*-cs3*.yaml"))


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)


def test_there_are_some() -> None:
    assert {"cs3-kuairand", "cs3-ml1m"} <= {path.stem for path in PLANS}
    assert {"dssm-cs3", "inttower-cs3"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_a_plan_of_ours_can_be_built(path: Path) -> None:
    plan, cells = load(path)
    assert {PLAIN, CONTROL} <= {c.variant for c in cells for b in plan.backbones if b.label == c.backbone}
    for cell in cells:
        config = cell.entry.config
        build.check_model(config.model, described(config.data), config.objective, config.synergy)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_config_with_all_of_cs3_is_the_plans(path: Path) -> None:
    """What `prerank replay` runs is what the ablation measured."""
    config = load_config(path)
    _, cells = load(f"configs/ablations/cs3-{path.parent.name}.yaml")
    measured = [c.entry.config for c in cells if c.variant == "cas+cts+cms"]
    assert any(config.model_copy(update={"name": m.name, "output": m.output}) == m for m in measured)
