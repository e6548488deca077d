"""Units, containers, alarms and the dashboard name verbs, options, files and metrics that there are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from prerank.config import load
from prerank.online.measures import Measures as Trainer
from prerank.serving.measures import Measures as Server
from prerank.stream.measures import Measures as Labels
from prerank.stream.waiting import COUNTS
from tests.test_docs import understood

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana/prerank.json").read_text())
RULES = [r for group in yaml.safe_load((DEPLOY / "alarms.yaml").read_text())["groups"] for r in group["rules"]]


def service(path: Path) -> dict[str, str]:
    """The section of a unit; a backslash continues a line."""
    found = RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(path.read_text().replace("\\\n", " "))
    assert {"Unit", "Service", "Install"} == set(found.sections())
    return dict(found["Service"])


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_a_unit_runs_a_verb_with_options_that_exist(path: Path) -> None:
    section = service(path)
    program, *arguments = shlex.split(section["ExecStart"])
    assert program == "/opt/prerank/bin/prerank"
    understood(arguments)
    assert section["Restart"] == "always"
    assert int(section["TimeoutStopSec"]) >= 40  # what is in flight has 30 s
    assert f"`{path.stem}`" in (DEPLOY.parent / "docs/operations.md").read_text()


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/prerank/bin/prerank", "/bin/true"))
    command = ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "prerank" in line]) == (0, [])


@pytest.mark.parametrize("name", ["server", "labels", "trainer"])
def test_a_service_runs_a_verb_with_options_that_exist(name: str) -> None:
    one = COMPOSE["services"][name]
    understood(one["command"])
    assert (one["image"], one["restart"]) == ("prerank", "always")


def test_services_mount_what_is_there_and_meet_at_the_same_addresses() -> None:
    services = COMPOSE["services"]
    for name, one in services.items():
        for mount in one.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./") and source != "./data":  # the log of before is theirs
                assert (DEPLOY / source).exists(), f"{name} mounts {source}"
            elif not source.startswith("./"):
                assert source in COMPOSE["volumes"]
        for link in one.get("depends_on", []):
            assert link in services
    stream = load(DEPLOY / "online.yaml").online
    assert stream is not None
    assert stream.publish is not None
    server, labels = (services[n]["command"] for n in ("server", "labels"))
    assert stream.publish.to == server[server.index("--source") + 1]
    assert stream.rows == labels[labels.index("--to") + 1]
    assert labels[2] == server[server.index("--log") + 1]
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    for job in scraped["scrape_configs"]:
        ((host, port),) = [t.split(":") for s in job["static_configs"] for t in s["targets"]]
        command = services[host]["command"]
        option = "--port" if host == "server" else "--metrics-port"
        assert command[command.index(option) + 1] == port


def test_the_image_copies_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert text.splitlines()[-2] == 'ENTRYPOINT ["prerank"]'
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for kept in (line[1:] for line in ignored if line.startswith("!")):
        assert (DEPLOY.parent / kept).exists()
    project = (DEPLOY.parent / "pyproject.toml").read_text()
    (extras,) = re.findall(r"\)\[([\w,]+)\]\"", text)
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


def exported() -> dict[str, set[str]]:
    """{metric: its labels} of what the server, the trainer and label waiting tell Prometheus."""
    found: dict[str, set[str]] = {}
    for own in (Server()._registry, Trainer()._registry):
        for collector in set(own._collector_to_names):
            metric: Any = collector
            found |= {name: set(metric._labelnames) for name in own._collector_to_names[collector]}
    for family in Labels().collect():
        names = {"counter": [f"{family.name}_total"]}.get(family.type, [family.name])
        found |= {name: set(family._labelnames) for name in names}  # type: ignore[attr-defined]
    return found


def named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of an expression, each with the labels that are matched."""
    for name, matched in re.findall(r"\b(prerank_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]", matched))


EXPRESSIONS = {f"{p['title']} {t['refId']}": (t["expr"], t["legendFormat"]) for p in DASHBOARD["panels"] for t in p.get("targets", [])}
EXPRESSIONS |= {r["alert"]: (r["expr"], "") for r in RULES}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_metrics_that_are_named_are_exported(name: str) -> None:
    known = exported()
    expression, legend = EXPRESSIONS[name]
    metrics = list(named(expression))
    assert metrics or expression == "up == 0"
    labels = {label for metric, _ in metrics for label in known[metric]} | {"le"}
    for metric, matched in metrics:
        assert matched <= known[metric], metric
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels
    for words in re.findall(r"by \(([^)]*)\)", expression):
        assert set(words.replace(" ", "").split(",")) <= labels
    for what in re.findall(r'what=~?"([^"]+)"', expression):
        assert any(re.fullmatch(what, count) for count in COUNTS)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {metric.removesuffix("_bucket") for name, (e, _) in EXPRESSIONS.items() for metric, _ in named(e)}
    known = {m for m in exported() if not m.endswith(("_created", "_sum", "_count", "_bucket"))}
    assert {m for m in known if m not in shown and f"{m}_total" not in shown} == set()


def test_the_page_names_every_metric_of_label_waiting_and_of_the_trainer() -> None:
    page = (DEPLOY.parent / "docs/operations.md").read_text() + (DEPLOY.parent / "docs/serving.md").read_text()
    known = exported()
    for metric in re.findall(r"`(prerank_[a-z_]+)", page):
        assert metric in known, f"the page names {metric}"
    for metric in known:
        if metric.startswith(("prerank_labels", "prerank_online")) and not metric.endswith(("_created", "_sum", "_count", "_bucket")):
            assert metric in page or f"{metric}_total" in known, f"the page does not name {metric}"


def test_panels_lie_beside_each_other() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        g = panel["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken, panel["title"]
        assert g["x"] + g["w"] <= 24
        taken |= cells
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
