from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prerank.consistency import Columns, Settings, Thresholds, check, read, report
from prerank.consistency.page import markdown, page, write
from prerank.consistency.words import MEANING, meaning

ALL = Columns(score="good", ranking="ranking", against="bad", item="item_id", stage="stage", bid="bid", truth="worth",
              user_events="user_events", item_events="item_events")  # fmt: skip
GATE = Thresholds.model_validate({"metrics": {"overlap@3": {"min": 0.99}, "regret@3": {"max": 0.9}}})


@pytest.fixture(scope="module")
def record(simulated: Path):
    found = report(read(simulated / "scored.parquet", ALL, logits="score"), Settings(at=(3, 10), resamples=50))
    return {**found, "thresholds": check(GATE, found, "gate.yaml")}


@pytest.fixture(scope="module")
def short(simulated: Path):
    """One pre-ranker, no slices, no thresholds, requests too short for a curve."""
    return report(read(simulated / "scored.parquet", Columns(score="bad", ranking="ranking")), Settings(at=(500,), resamples=10))


class Tags(HTMLParser):
    """Counts tags, and sees to it that they close."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_alone(record) -> None:
    text = page(record)
    tags = Tags(text).seen
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert len(images) == 7  # overlap, regret, joint recall, histogram, differences, slices by overlap@3 and overlap@10
    assert all(i["src"].startswith("data:image/png;base64,") and i["alt"] for i in images)
    assert not [t for t, a in tags if t in ("script", "link", "iframe") or a.get("href")]
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    assert "Failed: 1 of 2 thresholds do not hold." in text


def test_the_markdown_says_what_the_page_says(record) -> None:
    text = markdown(record)
    assert text.startswith("# Consistency of good with ranking\n\n150 requests, ")
    assert "Failed: 1 of 2 thresholds do not hold.\n* overlap@3: must be at least 0.99; it is 0." in text
    for name, found in record["metrics"].items():
        assert f"{found['value']:.4f}" in next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    for name in record["slices"]:
        assert f"| {name} " in text


def test_names_cannot_become_markup(short) -> None:
    text = page({**short, "pre_ranker": "<script>alert(1)</script>"})
    assert "<script>" not in text


def test_three_files(short, tmp_path: Path) -> None:
    paths = write(short, tmp_path / "new" / "report")
    assert [p.name for p in paths] == ["consistency.json", "consistency.md", "consistency.html"]
    assert json.loads(paths[0].read_text())["metrics"].keys() == short["metrics"].keys()
    assert "Slices" not in paths[2].read_text()


def test_a_metric_without_a_value_is_a_dash(short) -> None:
    assert short["metrics"]["overlap@500"]["requests"] == 0
    assert re.search(r"\| overlap@500 +\| +– \|", markdown(short))


def test_every_metric_has_its_sentence(record) -> None:
    names = [*record["metrics"], *(n for s in record["slices"].values() for n in s["metrics"])]
    assert {n.partition("@")[0] for n in names} == set(MEANING)
    assert "{" not in "".join(map(meaning, names))
