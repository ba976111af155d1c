"""The documentation holds: its code runs, its links lead somewhere, its flags and knobs are those of the commands."""

import dataclasses
import re
from pathlib import Path

import pytest

from results.analysis.guide import expected_of_lever, expected_of_plan
from results.commands import ExportOptions, ImportanceOptions, TableOptions
from search.setup.options import Options
from spaces import load_space
from spaces.knobs import KNOWN
from tests.results.synthetic import confirm, make_rows, make_run
from timellm.contract.config import RunConfig
from timellm.estimate_training_time import Measurement
from timellm.forecast import Asked
from timellm.run_main import Output

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DECLARED = (RunConfig, Options, Output, Measurement, Asked, TableOptions, ImportanceOptions, ExportOptions)
"""The options of every command."""

MEASURED = ("seconds per epoch", "speed-up", "times as fast (95 % interval)")
"""Heads of columns that hold figures of a benchmark."""

PACKAGES = ("spaces", "timellm", "search", "results")
PLACE = rf"(?:{'|'.join(PACKAGES)}|benchmarks|tests)"
MAPPED = ("spaces", "timellm", "timellm/contract", "search", "results", "results/analysis", "results/document")
MAPPED += ("search/decide", "search/decide/propose", "search/decide/spend", "search/decide/clocks")
MAPPED += ("search/setup", "search/tune", "search/screen")
"""Folders whose modules docs/design.md names one by one."""

OF_OTHER_PROGRAMS = {"--no-deps", "--no-dashboard", "--help", "--logdir", "--head", "--cpu"}
OF_OTHER_PROGRAMS |= {"--mixed_precision", "--gradient_clipping", "--local_rank", "--deepspeed"}
OF_OTHER_PROGRAMS |= {"--num_processes", "--multi_gpu", "--standalone", "--nproc_per_node"}


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module of the project, or a word of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        module = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        if module.is_file():
            return count == len(parts) or re.search(rf"\b{parts[-1]}\b", module.read_text()) is not None
    return False


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def measured_rows(page: Path) -> list[str]:
    """The figures of each row of the page's tables that quote a benchmark."""
    tables = re.findall(r"^(\|.*)\n\|[ :|-]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    rows = []
    for head, body in tables:
        chosen = [index for index, name in enumerate(cells(head)) if name in MEASURED]
        rows += [" ".join(cells(line)[index] for index in chosen) for line in body.splitlines() if chosen]
    return rows


@pytest.mark.parametrize("name", ["docs/dataframe.md", "README.md"])
def test_python_blocks_run_one_after_the_other_and_print_what_is_shown(name, tmp_path, capsys):
    rows = make_rows(40)
    make_run(tmp_path / "NAME", [*rows, *confirm(rows, "t0000")])
    make_run(tmp_path / "OTHER", make_rows(20, seed=1))
    blocks = code_blocks(ROOT / name, "python")
    namespace: dict[str, object] = {}

    for block in blocks:
        exec(block.replace("runs/", f"{tmp_path}/"), namespace)

    printed = capsys.readouterr().out
    assert blocks
    assert [shown for shown in code_blocks(ROOT / name, "text") if shown not in printed] == []


def test_the_space_in_the_documentation_is_one(tmp_path):
    (block,) = code_blocks(ROOT / "docs" / "knobs.md", "toml")
    (tmp_path / "my.toml").write_text(block)

    assert load_space(str(tmp_path / "my.toml")).plans["careful"]["learning_rate"] == 5e-5


def test_every_knob_and_setting_is_documented():
    text = (ROOT / "docs" / "knobs.md").read_text()

    assert [name for name in KNOWN if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_in_the_documentation_exists(page):
    published = (ROOT / "timellm" / "arguments.py").read_text()
    known = set(re.findall(r"\"(--[a-z_]+)\"", published)) | OF_OTHER_PROGRAMS
    known |= {f"--{field.name}" for declared in DECLARED for field in dataclasses.fields(declared)}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", page.read_text()))

    assert used - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_and_file_of_the_project_that_is_named_exists(page):
    dotted = re.findall(rf"(?<![\w./]){PLACE}(?:\.[A-Za-z_]\w*)+(?<!\.py)(?<!\.md)", page.read_text())
    paths = re.findall(rf"(?<![\w./]){PLACE}(?:/[\w.-]+)+", page.read_text())

    assert [name for name in dotted if not is_defined(name)] == []
    assert [name for name in paths if not (ROOT / name.rstrip(".")).exists()] == []


def test_the_map_of_the_project_names_every_module_of_its_rooms():
    rooms = (ROOT / "docs" / "design.md").read_text().split("## Rooms")[1].split("## One search")[0]
    named = set(re.findall(r"`(\w+)/?`", rooms))
    modules = {path.stem for folder in MAPPED for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    words = {word for path in paths if path.suffix == ".py" for word in re.findall(r"\w+", path.read_text())}

    assert modules - named == set()
    assert named - words - {path.stem for path in paths} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())

    assert [link for link in targets if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "docs/levers.md"])
def test_measured_figures_stand_in_a_row_of_a_benchmark(name):
    lines = [line for file in ROOT.glob("benchmarks/*.md") for line in file.read_text().splitlines() if "|" in line]
    known = [numbers(line) for line in lines]
    rows = measured_rows(ROOT / name)

    assert len(rows) > 3
    assert [row for row in rows if not any(numbers(row) <= line for line in known)] == []


@pytest.mark.parametrize("name", ["README.md", "docs/levers.md"])
def test_what_the_guide_expects_of_a_plan_is_quoted_as_the_report_has_it(name):
    text = (ROOT / name).read_text()
    plans = [expected_of_plan(plan) for plan in ("plan-a", "plan-b")]

    assert [plan.words for plan in plans if plan.words.removesuffix("×") not in text] == []


def test_what_the_guide_expects_of_a_lever_is_quoted_as_the_report_has_it():
    text = (ROOT / "docs" / "levers.md").read_text()
    changes = [("precision", "bf16", "fp32"), ("batch_size", 64, 32), ("offload_optimizer", "none", "off")]
    changes += [("num_workers", 8, 0), ("compile_mode", "default", "off"), ("llm_layers", 3, 6)]
    levers = [expected_of_lever(*change) for change in changes]

    assert [lever.words for lever in levers if lever.words not in text] == []
