import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import typer
from typer.testing import CliRunner

from prerank import __version__
from prerank.cli import VERBS, app
from prerank.cli.verbs import load, sentences
from prerank.config import ConfigError
from prerank.data.errors import DataError

run = CliRunner().invoke


def verb_that(monkeypatch, action):
    """`prerank validate` does something else for a while."""

    def validate(config: str = typer.Argument(".")) -> None:
        action()

    monkeypatch.setattr("prerank.cli.validate.validate", validate)
    return ["validate"]


def raising(error):
    def action():
        raise error

    return action


def test_help_lists_every_verb_and_imports_no_heavy_room():
    code = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "from typer.testing import CliRunner\n"
        "from prerank.cli import app\n"
        "out = CliRunner().invoke(app, ['--help'])\n"
        "heavy = {'torch', 'polars', 'pyarrow', 'matplotlib', 'litestar', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert out.exit_code == 0 and not heavy, heavy\n"
        "print(out.output)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for name in ("init", "validate", "train", "eval"):
        assert VERBS[name].help[:30] in shown


def test_help_is_quick():
    """In CPU seconds, which a busy machine does not stretch as it does the wall's."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "prerank", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 1.0  # measured 0.2 s


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_shows_examples(name):
    load(name, VERBS[name])
    out = run(app, [name, "--help"])
    assert out.exit_code == 0
    usage, *page = out.output.partition("Usage: ")[2].splitlines()
    examples = [line for line in page if line.strip().startswith(f"prerank {name} ") or line.strip() == f"prerank {name}"]
    assert usage.startswith(f"root {name}") or usage.startswith(f"prerank {name}")
    assert examples or name in ("data", "events"), "these have verbs of their own, and they have the examples"


def test_version():
    out = run(app, ["--version"])
    assert (out.exit_code, out.output) == (0, f"prerank {__version__}\n")


def test_nothing_at_all_shows_help():
    out = run(app, [])
    assert out.exit_code == 2
    assert "Usage: " in out.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tran"], "error: no verb 'tran'; did you mean 'train'? (see prerank --help)\n"),
        (["validate"], "error: Missing argument 'config' (see prerank validate --help)\n"),
        (["validate", "--nope", "x"], "error: No such option: --nope (see prerank validate --help)\n"),
        (["--nope"], "error: No such option: --nope (see prerank --help)\n"),
        (["validate", "nowhere.yaml"], "error: config 'nowhere.yaml': cannot be read: No such file or directory\n"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, line):
    out = run(app, arguments, prog_name="prerank")
    assert (out.exit_code, out.stderr, out.stdout) == (2, line, "")


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_each_problem_has_its_line(monkeypatch, kind):
    out = run(app, verb_that(monkeypatch, raising(kind("one\ntwo"))))
    assert (out.exit_code, out.stderr) == (2, "error: one\nerror: two\n")


def test_what_the_system_refuses_is_one_line(monkeypatch):
    out = run(app, verb_that(monkeypatch, raising(OSError(28, "No space left on device", "runs/x"))))
    assert (out.exit_code, out.stderr) == (2, "error: 'runs/x': No space left on device\n")


@pytest.mark.parametrize("arguments", [["--debug", "validate"], ["validate", "--debug"], ["validate", "x", "--debug"]])
def test_debug_shows_where_it_came_from(monkeypatch, arguments):
    verb_that(monkeypatch, raising(ConfigError("one")))
    out = run(app, arguments)
    assert out.exit_code == 2
    assert "Traceback" in out.stderr
    assert out.stderr.endswith("error: one\n")


def test_bugs_are_not_hidden(monkeypatch):
    def bug():
        int("x")  # a ValueError of Python's own, from a test: not the house's

    out = run(app, verb_that(monkeypatch, bug))
    assert out.exit_code == 1
    assert isinstance(out.exception, ValueError)


def test_a_plain_value_error_of_the_house_is_a_line():
    from prerank.metrics import auc

    with pytest.raises(ValueError) as caught:
        auc([1.0], [1])
    assert sentences(caught.value) == ["auc: needs both classes, got only 1s (n=1)"]


def test_ctrl_c_is_one_line_and_130(monkeypatch):
    out = run(app, verb_that(monkeypatch, raising(KeyboardInterrupt())))
    assert (out.exit_code, out.stderr) == (130, "error: interrupted\n")


def test_ctrl_c_in_a_real_process(tmp_path):
    """A pipe keeps `validate` waiting for its config until the signal comes."""
    os.mkfifo(tmp_path / "config.yaml")
    command = [sys.executable, "-m", "prerank", "validate", str(tmp_path / "config.yaml")]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job is born deaf to it
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        writer = os.open(tmp_path / "config.yaml", os.O_WRONLY)  # returns when the process has opened its end
        try:
            for _ in range(30):  # a signal that comes between open and read is only seen when the read ends: then once more
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(timeout=5)
                    break
        finally:
            os.close(writer)
            process.kill()
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")


def test_colour_only_on_a_terminal():
    done = subprocess.run([sys.executable, "-m", "prerank", "tran"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_completion_knows_the_verbs():
    done = subprocess.run(
        [sys.executable, "-m", "prerank"],
        env={**os.environ, "_PRERANK_COMPLETE": "complete_bash", "COMP_WORDS": "prerank va", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["validate"]


def test_completion_knows_a_verbs_options():
    done = subprocess.run(
        [sys.executable, "-m", "prerank"],
        env={**os.environ, "_PRERANK_COMPLETE": "complete_bash", "COMP_WORDS": "prerank init --fo", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["--force"]
