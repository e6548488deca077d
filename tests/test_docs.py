"""The pages say what is so: links, paths, commands, settings, code, and tables that come from results/*.json."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs import generate, settings
from prerank.cli import VERBS
from prerank.cli.verbs import load
from prerank.config import checked, parse
from prerank.consistency import Thresholds
from prerank.serving import Experiment
from prerank.tuning import Tune

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "prerank|docs|configs|benchmarks|examples|tests|results"


def page(path: Path) -> str:
    return str(path.relative_to(ROOT))


pages = pytest.mark.parametrize("path", PAGES, ids=page)


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """Fenced blocks of these languages."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE):
        if language in languages:
            yield body


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What a link to a heading of the page may end in."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def commands(path: Path) -> list[list[str]]:
    """Whole command lines: of shell blocks, and after a `$` of console blocks; a backslash continues a line."""
    lines = [line for body in blocks(path, "sh") for line in body.replace("\\\n", " ").splitlines()]
    lines += [line[2:] for body in blocks(path, "console") for line in body.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    return [shlex.split(part.split("  #")[0].removesuffix(" &")) for line in lines for part in line.split("&&") if part.strip()]


def mentions(path: Path) -> list[str]:
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", prose(path))


@pages
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{page(path)} links to '{target}', which is not there"
        assert not anchor or anchor in anchors(found), f"{page(path)}: '{target}': {page(found)} has no such heading"


@pages
def test_files_that_are_named_exist(path):
    text = path.read_text()
    for name in re.findall(rf"(?<![\w/.])((?:{ROOMS})/[\w./*-]*[\w*/])", text):
        benchmark = re.fullmatch(r"results/(\w+)\.json", name)  # measured or not, something must make it
        known = (ROOT / f"benchmarks/{benchmark[1]}.py").exists() if benchmark else bool(list(ROOT.glob(name.rstrip("/"))))
        assert known, f"{page(path)} names '{name}', which is not there"


@pages
def test_commands_parse(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *arguments in commands(path):
        if program == "prerank":
            understood(arguments)
        elif program == "make":
            assert set(arguments) <= set(targets), f"{page(path)}: make has no such target: {arguments}"
        elif program == "python":
            exists(arguments)


@pages
def test_commands_in_passing_name_verbs_and_options_that_exist(path):
    for text in mentions(path):
        if re.fullmatch(r"make [\w-]+", text):
            assert re.search(rf"^{text[5:]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page(path)}: `{text}`"
        elif text.startswith("python "):
            exists(shlex.split(text)[1:])
        elif text.startswith("prerank ") and "VERB" not in text:
            verb, *rest = shlex.split(text)[1:]
            assert verb in VERBS, f"{page(path)}: `{text}`: no such verb"
            valid = {option for command in of(verb) for p in command.params for option in (*p.opts, *p.secondary_opts)}
            for option in (word for word in rest if word.startswith("-")):
                assert option in {*valid, "--help"}, f"{page(path)}: `{text}`: {verb} has no {option}"


@pages
def test_yaml_parses(path):
    for body in blocks(path, "yaml"):
        raw = yaml.safe_load(body)
        if body.startswith("# search:"):
            checked(Tune, raw, page(path)).base()
            continue
        if body.startswith("# gate:"):
            checked(Thresholds, raw, page(path))
            continue
        if body.startswith("# experiment:"):
            checked(Experiment, raw, page(path))
            continue
        section = re.match(r"# fragment of (data|training)", body)
        if section and section[1] == "data":
            raw = {"data": {"log": "log.csv", "labels": {"click": {"column": "click"}}, **raw}}
        elif section:
            raw = {section[1]: raw}
        config = parse(raw, where=page(path))
        if config.data.features:
            config.data.schema_()


@pages
def test_python_parses_and_imports_what_exists(path):
    for body in blocks(path, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("prerank"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, a.name) or importlib.util.find_spec(f"{node.module}.{a.name}") for a in node.names)


def test_the_readme_shows_the_example():
    example = (ROOT / "examples/quickstart.py").read_text().split('"""', 2)[2].strip()
    assert next(blocks(ROOT / "README.md", "python")).strip() == example


@pages
def test_nothing_of_a_machine_is_told(path):
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/", path.read_text())


def test_generated_parts_are_up_to_date():
    assert [page(p) for p in generate.stale()] == [], "run `python -m docs.generate`"


def test_every_part_has_its_place():
    marked = {name for path in PAGES for name in re.findall(r"<!-- table:([\w-]+) -->", path.read_text())}
    assert marked == set(generate.PARTS)


def test_every_key_is_explained_once():
    undescribed = {f"{s}.{n}" for s, m in settings.MODELS.items() for n, f in m.model_fields.items() if not f.description}
    assert set(settings.SAID) == undescribed


def test_a_part_that_nobody_makes_is_refused():
    with pytest.raises(ValueError, match="part 'nothing': must be one of x"):
        generate.filled("<!-- table:nothing -->\n<!-- end -->", {"x": str})


def of(verb: str) -> list:
    """The verb's command, and those below it."""
    command = load(verb, VERBS[verb])
    return [command, *getattr(command, "commands", {}).values()]


def understood(arguments: list[str]) -> None:
    """Parse a command line without running it; raises what the command line would complain of."""
    if arguments and arguments[0].startswith("-"):
        assert arguments in (["--help"], ["--version"])
        return
    verb, *rest = [a for a in arguments if a != "--help"]
    assert verb in VERBS, f"no verb '{verb}'"
    command, *below = of(verb)
    if below:
        name, *rest = rest
        command = next(c for c in below if c.name == name)
    if rest or "--help" not in arguments:
        command.make_context(verb, rest)


def exists(arguments: list[str]) -> None:
    """The module or script of a `python` line is there."""
    if arguments[0] == "-m":
        where = arguments[1].replace(".", "/")
        external = importlib.util.find_spec(arguments[1].split(".")[0]) is not None and not (ROOT / where.split("/")[0]).exists()
        assert external or (ROOT / f"{where}.py").exists() or (ROOT / where / "__main__.py").exists(), f"no module '{arguments[1]}'"
    else:
        assert (ROOT / arguments[0]).exists(), f"no script '{arguments[0]}'"
