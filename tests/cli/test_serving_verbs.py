"""export, serve and score from the command line, on a generation of a small random model."""

import json
import re
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from prerank.cli import app
from prerank.config import Model
from prerank.serving import Client, open_current
from tests.serving.world import OPTIONS, model, published, server, threaded, world

run = CliRunner().invoke


@pytest.fixture(scope="module")
def data():
    return world()


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "generations"
    published(path, data)
    return path


def listed(data, n):
    return ",".join(map(str, data.item_ids[:n]))


def test_score_in_process(data, folder):
    user = str(data.user_ids[2])
    result = run(app, ["score", str(folder), "--user", user, "--candidates", listed(data, 5) + ",999999", "-k", "2", "--set", "tab=1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert "unknown items: 999999" in result.stderr
    assert "missing features" not in result.stderr
    whole = json.loads(run(app, ["score", str(folder), "-u", user, "-i", listed(data, 5), "-k", "2", "-s", "tab=1", "--json"]).stdout)
    assert [line.split("\t")[0] for line in lines] == [str(i) for i in whole["items"]]


def test_score_everything_from_stdin_and_for_nobody(data, folder):
    assert len(run(app, ["score", str(folder), "-k", "7"]).stdout.splitlines()) == 7
    result = run(app, ["score", str(folder.parent), "-i", "-"], input="\n".join(map(str, data.item_ids[:3])))
    assert len(result.stdout.splitlines()) == 3
    assert "missing features: city, age, income, seen, tab" in result.stderr


def test_score_through_a_server(data, folder):
    arguments = ["--user", str(data.user_ids[2]), "--candidates", listed(data, 9), "--set", "tab=1", "--set", "city=oslo", "--json"]
    with threaded(folder, token="sesame") as url:
        answered = run(app, ["score", "--url", url, "--token", "sesame", *arguments])
        assert answered.exit_code == 0, answered.output
        refused = run(app, ["score", "--url", url, *arguments])
    here = json.loads(run(app, ["score", str(folder), *arguments]).stdout)
    there = json.loads(answered.stdout)
    assert there["items"] == here["items"]
    np.testing.assert_allclose(there["scores"], here["scores"], rtol=1e-6)
    assert refused.exit_code == 2
    assert "answered 401" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "1,x"], "--candidates: ids of this generation are integers; got 'x'"),
        (["-u", "bob"], "--user: ids of this generation are integers; got 'bob'"),
        (["-s", "tab"], "--set 'tab': must look like feature=value"),
        (["-s", "tib=1"], "unknown feature 'tib'"),
        (["-s", "age=old"], "features.age: feature 'age': 1 value is not a number"),
    ],
)
def test_score_says_what_is_wrong_in_a_line(folder, arguments, message):
    result = run(app, ["score", str(folder), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_serve_says_what_is_wrong_in_a_line(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        result = run(app, ["serve", str(folder), "--port", port])
        following = run(app, ["serve", str(folder), "--port", port, "--source", "redis://user:secret@store:6379/0?prefix=shop"])
    assert following.stdout == f"following redis at store:6379/0, prefix shop into '{folder}'; looks every 1 s\n"
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: port {port} on 127.0.0.1: address already in use; choose another with --port\n",
    )
    result = run(app, ["serve", str(tmp_path), "--port", "0"])
    assert result.exit_code == 2
    assert "holds no current.json; `prerank export` writes one" in result.stderr


def test_serve_deals_the_arms_of_a_file(data, folder, tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(f"name: first\narms:\n- {{name: a, folder: {folder}, share: 0.5}}\n- {{name: b, folder: {tmp_path}, share: 0.5}}\n")
    for arguments, message in (
        ([str(folder), "--experiment", str(file)], "--experiment: its arms name their own; FOLDER must not be given"),
        (["--source", "file:///nowhere", "--experiment", str(file)], "--experiment: its arms name their own; --source must not be given"),
        (["--experiment", str(file), "--port", "0"], "holds no current.json"),
        (["--experiment", str(tmp_path / "none.yaml")], "cannot be read"),
        ([str(folder), "--log", "events.db", "--port", "0"], "must be an address that begins with"),
    ):
        result = run(app, ["serve", *arguments])
        assert (result.exit_code, len(result.stderr.strip().splitlines())) == (2, 1), result.output
        assert message in result.stderr
    shutil.copytree(folder, tmp_path / "generations")  # a run's folder stands for its generations
    command = [sys.executable, "-m", "prerank", "serve", "--experiment", str(file), "--port", "0", "--log", f"sqlite:///{tmp_path}/e.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        with Client(url[0]) as client:
            client.wait_until_ready(240)
            assert {client.score([1], user=u).arm for u in data.user_ids.to_list()[:20]} == {"a", "b"}
        process.terminate()
        assert process.wait(60) == 0


def stub_run(folder, data, validation, name="mf"):
    """What export reads of a run."""
    made = model(data, name)
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (500, 1)).astype(np.float32)
    y = (rng.random((500, 1)) < 1 / (1 + np.exp(-z))).astype(np.float32)
    data.rows = lambda split: np.arange(500 if validation else 0)
    settings = SimpleNamespace(name="small", model=Model.model_validate(OPTIONS[name]), synergy=None)
    return SimpleNamespace(folder=folder, dataset=data, model=made, config=settings, logits=lambda split: (z, y))


@pytest.mark.parametrize(
    ("arguments", "validation", "calibrated", "warning"),
    [([], True, ["click"], ""), (["--calibrator", "none"], True, [], ""), (["--dtype", "int8"], False, [], "no validation rows")],
)
def test_export(tmp_path, monkeypatch, arguments, validation, calibrated, warning):
    opened = stub_run(tmp_path, world(), validation)
    monkeypatch.setattr("prerank.run.open_run", lambda folder: opened)
    result = run(app, ["export", str(tmp_path), *arguments])
    assert result.exit_code == 0, result.output
    assert "300 items, 60 users" in result.stdout
    assert warning in result.stderr
    generation = open_current(tmp_path / "generations")
    assert sorted(generation.calibrators) == calibrated
    assert generation.meta.name == "small"


@pytest.mark.parametrize(("name", "arguments", "stored", "said"), [
    ("deepfm", [], "MiB of item columns", "generation 1 scores by a ranker, which runs for every candidate: "),
    ("ranktower", ["--users"], "MiB of user vectors", "generation 1 scores by a head that reads every pair: "),
    ("mf", ["--users"], "MiB of user vectors", None),
])  # fmt: skip
def test_what_a_candidate_costs_is_said_at_export_and_by_the_server(tmp_path, monkeypatch, name, arguments, stored, said):
    opened = stub_run(tmp_path, world(), True, name)
    monkeypatch.setattr("prerank.run.open_run", lambda folder: opened)
    lines = run(app, ["export", str(tmp_path), *arguments]).stdout.splitlines()
    assert stored in lines[0]
    generations = tmp_path / "generations"
    assert open_current(generations).meta.user_vectors == ("--users" in arguments)
    if said is None:
        assert len(lines) == 2
        return
    assert re.fullmatch(re.escape(said) + r"\d+\.\d us each", lines[1])
    if name == "deepfm":
        with server(generations) as (url, process), Client(url) as client:
            assert process.stdout.readline().startswith(said)
            client.wait_until_ready()  # before that a signal to end may be lost


def test_a_ranker_has_no_vectors_to_store(tmp_path, monkeypatch):
    opened = stub_run(tmp_path, world(), True, "lr")
    monkeypatch.setattr("prerank.run.open_run", lambda folder: opened)
    result = run(app, ["export", str(tmp_path), "--users"])
    assert result.exit_code == 2
    assert result.stderr == "error: export: a ranker has no vectors, so dtype must be fp32 and users False; got fp32, True\n"


def test_export_says_what_is_wrong_in_a_line(tmp_path, monkeypatch):
    opened = stub_run(tmp_path, world(), True)
    monkeypatch.setattr("prerank.run.open_run", lambda folder: opened)
    result = run(app, ["export", str(tmp_path), "--dtype", "fp8"])
    assert (result.exit_code, result.stderr) == (2, "error: export: dtype must be one of fp32, bf16, int8; got 'fp8'\n")
    assert not (tmp_path / "generations").exists()
