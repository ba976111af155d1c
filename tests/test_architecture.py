"""Rooms and their doors: which package may import which, how modules are named, how long a file may be."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("spaces", "timellm", "search", "results")
FORBIDDEN = {
    "timellm": {"search", "results", "ray", "optuna", "benchmarks", "tests"},
    "search": {"benchmarks", "tests"},
    "results": {"search", "timellm", "ray", "torch", "benchmarks", "tests"},
}
MAX_LINES = 450


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


def dependency_names() -> set[str]:
    """Names that this project's dependencies are imported by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[<>=~! ;]", text)[0] for text in project["dependencies"]}
    canonical = {name.lower().replace("_", "-") for name in wanted}
    return {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if canonical & {name.lower().replace("_", "-") for name in distributions}
    }


def test_spaces_import_the_standard_library_alone():
    found = {name for path in modules_of("spaces") for name in imported(path)}

    assert found - sys.stdlib_module_names == {"spaces"}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules_of(package)
        for name in imported(path)
        if name in FORBIDDEN[package]
    }

    assert found == set()


def test_no_package_imports_relatively():
    nodes = (
        (path, node)
        for package in PACKAGES
        for path in modules_of(package)
        for node in ast.walk(ast.parse(path.read_text()))
    )

    assert [path for path, node in nodes if isinstance(node, ast.ImportFrom) and node.level] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_shadows_the_standard_library_or_a_dependency(package):
    dependencies = dependency_names()
    names = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}

    assert {"torch", "ray", "optuna"} <= dependencies
    assert names & (set(sys.stdlib_module_names) | dependencies) == set()


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_files_are_short(folder):
    long = {str(path.relative_to(ROOT)): lines for path in modules_of(folder) if (lines := _lines(path)) >= MAX_LINES}

    assert long == {}


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_every_folder_of_modules_is_a_package(package):
    folders = {path.parent for path in modules_of(package)}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())
