import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from setuptools import Distribution

from results.document.answer import Answer
from results.document.page import build_report
from results.document.rendering import json_data, render, verbatim
from tests.results.synthetic import make_errors, make_rows, make_run

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "results" / "document" / "templates"
HOSTILE = "<script>alert(1)</script> & \"quotes\" 'single' </style> \x1b[31m"
HARMLESS = "planted"

FIXED = {"status", "created_at", "finished_at", "objective", "train_command", "project_root", "state", "started_at"}
FIXED |= {"trial_id", "timing_quality", "baseline_trial_id", "run_defaults", "run_config", "baseline", "plans", "knobs"}
FIXED |= {"python"}
"""What a run folder cannot hold anything in: names, times, states, settings and the interpreter, which are checked when
it is read."""


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, and its text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(name for name, _ in attributes)))

    def handle_data(self, data):
        self.text += "" if self.tags and self.tags[-1][0] == "script" else data


def planted(value, text):
    """A value with a text at the end of every text in it, names of what it holds left alone."""
    if isinstance(value, dict):
        return {name: held if name in FIXED else planted(held, text) for name, held in value.items()}
    if isinstance(value, list):
        return [planted(held, text) for held in value]
    return f"{value} {text}" if isinstance(value, str) else value


def planted_report(path, text):
    """The report of a run folder with a text in every value of its manifest, table and errors that may be a text."""
    rows = [planted(row, text) for row in make_rows(24)]
    rows = [row | {"source": "baseline"} if index == 0 else row for index, row in enumerate(rows)]
    folder = make_run(path, rows, versions={f"torch {text}": "2"}, data={"name": "x", "notes": ["a"], "columns": []})
    make_errors(folder, rows)
    folder.manifest.write_text(json.dumps(planted(json.loads(folder.manifest.read_text()), text)))
    lines = [json.loads(line) for line in folder.errors.read_text().splitlines()]
    for line in lines:
        line["examples"] = planted(line["examples"], text + "\ud800")
    folder.errors.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder, build_report(folder).read_text()


def test_no_value_of_a_run_folder_becomes_markup(tmp_path):
    _, harmless = planted_report(tmp_path / "harmless" / "t1", HARMLESS)
    folder, hostile = planted_report(tmp_path / "hostile" / "t1", HOSTILE)

    parsed, expected = Tags(hostile), Tags(harmless)

    assert parsed.tags == expected.tags
    assert parsed.text.count(re.sub(r"\x1b", "", HOSTILE)) == expected.text.count(HARMLESS) > 60
    assert not re.search("[\x00-\x08\x0e-\x1f\ud800-\udfff]", parsed.text)
    figures = re.findall(r'<script type="application/json" id="figure-\w+">(.*?)</script>', hostile, flags=re.DOTALL)
    assert len(figures) == 8
    assert not [figure for figure in figures if "<script" in json.dumps(json.loads(figure))]
    for plot in folder.plots.glob("*.html"):
        assert Tags(plot.read_text()).tags == Tags((tmp_path / "harmless/t1/plots" / plot.name).read_text()).tags


def test_data_cannot_end_its_script():
    assert "</" not in json_data({"text": "</script><!--"})
    assert json.loads(json_data({"text": "</script>"})) == {"text": "</script>"}


def test_numbers_stay_on_a_line_with_their_units_but_commands_are_left_alone(tmp_path):
    note, command = "20 GiB at +2 % in 3 min 20 s, 4 samples", ["--x", "20 GiB"]
    text = build_report(make_run(tmp_path / "t1", [], notes=[note], command=command)).read_text()

    assert "<li>20\u00a0GiB at +2\u00a0% in 3\u00a0min 20\u00a0s, 4 samples</li>" in text
    assert "<code>--x 20 GiB</code>" in text
    assert verbatim("<20 s>\x00") == "&lt;20 s&gt;"


def test_a_table_heads_its_columns_and_rows_and_can_be_reached_by_keyboard(tmp_path):
    text = build_report(make_run(tmp_path / "t1", make_rows(12))).read_text()
    front = text[text.index("The front as a table") :]

    assert 'tabindex="0" role="region" aria-label="Configurations on the Pareto front"' in front[:200]
    assert '<th scope="col">Trial</th>' in front
    assert '<th scope="col" class="number">Per epoch</th>' in front
    assert re.search(r'<th scope="row">t\d+</th>\s*<td>[\w-]+</td>\s*<td class="number">', front)


def test_a_value_that_is_missing_is_an_error_not_a_gap():
    with pytest.raises(UndefinedError, match="'answer' is undefined"):
        render("answer.html.j2")
    with pytest.raises(TypeError, match="got None"):
        render("answer.html.j2", answer=Answer(eyebrow=None, headline="x", lead="x"))


def test_templates_escape_everything_and_only_one_module_marks_html():
    for path in TEMPLATES.glob("*.j2"):
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape", text), path
        assert not re.search(r"=\s*\{\{", text), f"{path} has an attribute without quotes"
    marking = [path.name for path in (ROOT / "results").rglob("*.py") if "Markup(" in path.read_text()]
    assert marking == ["rendering.py"]


def test_no_module_holds_html():
    names = "html|head|body|div|span|p|table|tr|td|th|ul|li|dl|dt|dd|pre|code|h[1-6]|section|script|style|a|button"
    tag = re.compile(rf"</?({names})( [a-z-]+=|>)")
    modules = [*(ROOT / "results").rglob("*.py")]

    assert [path.name for path in modules if tag.search(path.read_text())] == []


def test_templates_are_short_and_an_installed_report_has_them():
    files = {path.name for path in TEMPLATES.iterdir()}
    settings = Distribution()
    settings.parse_config_files([str(ROOT / "pyproject.toml")])
    patterns = settings.package_data["results.document"]

    assert {path.name for pattern in patterns for path in (ROOT / "results/document").glob(pattern)} == files
    assert all(len((TEMPLATES / name).read_text().splitlines()) <= 400 for name in files)
