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
CONTRACT = "timellm.contract"
ROOMS = (CONTRACT, "spaces", "timellm", "search.decide", "search", "results")
"""A module belongs to the first of these that holds it."""
FORBIDDEN = {
    CONTRACT: {"spaces", "timellm", "search", "results"},
    "spaces": {"timellm", "search", "results"},
    "timellm": {"search", "results", "ray", "optuna", "benchmarks", "tests"},
    "search.decide": {"ray", "search.setup", "search.tune", "search.screen", "benchmarks", "tests"},
    "search": {"benchmarks", "tests"},
    "results": {"search", "spaces", "timellm", "ray", "torch", "benchmarks", "tests"},
}
"""What a room may not import. The contract is open to all."""
MAX_LINES = 400
MAX_LINES_ELSEWHERE = 450
MAX_MODULES = 15


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, room: str) -> bool:
    return f"{name}.".startswith(f"{room}.")


def room_of(path: Path) -> str | None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return next((room for room in ROOMS if is_in(module, room)), None)


def reaches_up(room: str, name: str) -> bool:
    """Whether a room may not import a name."""
    if is_in(name, room) or (is_in(name, CONTRACT) and room != CONTRACT):
        return False
    return any(is_in(name, forbidden) for forbidden in FORBIDDEN[room])


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


@pytest.mark.parametrize("room", [CONTRACT, "spaces"])
def test_the_ground_floor_imports_the_standard_library_alone(room):
    found = {name for path in modules_of(room.replace(".", "/")) for name in imported(path)}

    assert {name for name in found if name.split(".")[0] not in sys.stdlib_module_names} == {
        name for name in found if is_in(name, CONTRACT) or is_in(name, room)
    }


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_one_way(room):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in modules_of(package)
        if room_of(path) == room
        for name in imported(path)
        if reaches_up(room, name)
    }

    assert found == set()


def test_a_room_that_reaches_up_is_found():
    assert reaches_up(CONTRACT, "spaces.knobs.KNOBS")
    assert reaches_up("search.decide", "search.tune.searcher.Limits")
    assert reaches_up("results", "timellm.run.training.TrainingRun")
    assert not reaches_up("results", "timellm.contract.columns.State")


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
    most = MAX_LINES if folder in PACKAGES else MAX_LINES_ELSEWHERE
    long = {str(path.relative_to(ROOT)): lines for path in modules_of(folder) if (lines := _lines(path)) > most}

    assert long == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_is_crowded(package):
    rooms = {path.parent for path in modules_of(package)}
    sizes = {str(room): len([path for path in room.glob("*.py") if path.stem != "__init__"]) for room in rooms}

    assert {room: size for room, size in sizes.items() if size > MAX_MODULES} == {}


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_every_folder_of_modules_is_a_package(package):
    folders = {path.parent for path in modules_of(package)}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())
