"""The path of one knob, from a space's TOML to the report, is the one that docs/design.md lists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
KNOB = "batch_size"
OTHER_COMMANDS = ("timellm/run_main.py", "timellm/estimate/", "timellm/forecasting/")
"""They read the knob beside a search."""
MOST_FILES = 30


def rows() -> list[tuple[str, str, str]]:
    """Form, files and sentence of each row of the table; a form that is left out is that of the row above."""
    section = (ROOT / "docs" / "design.md").read_text().split("## The path of one knob")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return [(form, files, sentence) for form, files, sentence in cells[2:]]


def listed() -> list[str]:
    return [name for _, files, _ in rows() for name in re.findall(r"`([^`]+)`", files)]


def names_it(path: Path) -> bool:
    """Whether a module's code, not its texts, names the knob."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == KNOB)
        or (isinstance(node, ast.Constant) and node.value == KNOB)
        or (isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == KNOB)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_the_path_is_short_and_each_of_its_files_is_there_once():
    assert len(listed()) <= MOST_FILES
    assert len(set(listed())) == len(listed())
    assert [name for name in listed() if not (ROOT / name).is_file()] == []


def test_each_file_has_a_sentence_that_says_what_it_does():
    assert rows()[0][0]
    assert [files for _, files, sentence in rows() if len(sentence.split()) < 4] == []


def test_no_file_of_a_search_names_the_knob_beside_the_path():
    packages = ("timellm", "spaces", "search", "results")
    modules = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    naming = {str(path.relative_to(ROOT)) for path in modules if names_it(path)}

    assert {name for name in naming if not name.startswith(OTHER_COMMANDS)} - set(listed()) == set()
