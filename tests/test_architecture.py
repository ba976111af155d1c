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
ROOMS = (
    CONTRACT,
    "spaces",
    "timellm",
    "search.decide",
    "search.setup",
    "search.screen",
    "search.tune",
    "search",
    "results",
)
"""A module belongs to the first of these that holds it."""
FORBIDDEN = {
    CONTRACT: {"spaces", "timellm", "search", "results"},
    "spaces": {"timellm", "search", "results"},
    "timellm": {"search", "results", "ray", "optuna", "benchmarks", "tests"},
    "search.decide": {"ray", "search.setup", "search.tune", "search.screen", "benchmarks", "tests"},
    "search.setup": {"ray", "search.tune", "search.screen", "search.session", "search.run", "benchmarks", "tests"},
    "search.screen": {"ray", "search.tune", "search.session", "search.run", "benchmarks", "tests"},
    "search.tune": {"search.setup", "search.screen", "search.session", "search.run", "benchmarks", "tests"},
    "search": {"ray", "benchmarks", "tests"},
    "results": {"search", "spaces", "timellm", "ray", "torch", "benchmarks", "tests"},
}
"""What a room may not import. The contract is open to all."""
DECLARING = ("config", "declarations", "datasets")
"""Modules of the contract that declare what today's version takes. An old run's defaults are in its manifest."""
LOOP = "search.decide"
OF_OTHERS = {"_attn_implementation"}
"""Private names that the product sets on another package's objects: transformers has no public one for it."""
MAX_LINES = 400
MAX_LINES_ELSEWHERE = 450
MAX_MODULES = 15


def modules_of(package: str, root: Path = ROOT) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(name: str, room: str) -> bool:
    return f"{name}.".startswith(f"{room}.")


def room_of(path: Path, root: Path = ROOT) -> str | None:
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    return next((room for room in ROOMS if is_in(module, room)), None)


def reaches_up(room: str, name: str) -> bool:
    """Whether a room may not import a name."""
    if is_in(name, room) or (is_in(name, CONTRACT) and room != CONTRACT):
        return False
    return any(is_in(name, forbidden) for forbidden in FORBIDDEN[room])


def upward_imports(room: str, root: Path = ROOT) -> set[str]:
    """What the modules of a room import though they may not, a sentence each."""
    return {
        f"{path.relative_to(root)} imports {name}"
        for package in PACKAGES
        for path in modules_of(package, root)
        if room_of(path, root) == room
        for name in imported(path)
        if reaches_up(room, name)
    }


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def is_ours(name: str) -> bool:
    return name.split(".")[0] in (*PACKAGES, "benchmarks", "tests")


def private_imports(text: str) -> set[str]:
    """Private names of the project that a module takes from another: imported, or as an attribute of a module."""
    tree = ast.parse(text)
    taken = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if is_ours(f"{node.module}.")
    }
    reached = {
        f"{taken[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in taken
    }
    return {name for name in {*taken.values(), *reached} if is_private(name)}


def private_patches(text: str) -> set[str]:
    """Private names that a test replaces: patched, assigned on another object, or overridden in a class of its own."""
    tree = ast.parse(text)
    ours = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    patched = {
        word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("setattr", "patch", "object")
        for word in node.args
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    }
    assigned = {
        target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) != "self"
    }
    overridden = {
        one.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & ours
        for one in node.body
        if isinstance(one, ast.FunctionDef)
    }
    return {name for name in patched | assigned | overridden if is_private(name)}


def own_private_names() -> set[str]:
    """Private names of the product and its benchmarks: functions, classes, constants and attributes."""
    trees = [ast.parse(path.read_text()) for folder in (*PACKAGES, "benchmarks") for path in modules_of(folder)]
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)} - OF_OTHERS


def private_reaches(text: str, private: set[str]) -> set[str]:
    """Private names of the project that a test reads or replaces on anything but its own objects."""
    read = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls")
    }
    patched = {name.split(".")[-1] for name in private_patches(text)}
    return (read | patched) & private


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
    assert upward_imports(room) == set()


def test_the_results_take_the_names_of_settings_but_no_default_and_no_limit_of_a_run():
    taken = {name for path in modules_of("results") for name in imported(path)}
    declared = {name for name in taken if any(is_in(name, f"{CONTRACT}.{module}") for module in DECLARING)}

    assert declared == {f"{CONTRACT}.config.SETTING_NAMES", f"{CONTRACT}.declarations.Shown"}


def test_a_room_that_reaches_up_is_found():
    assert reaches_up(CONTRACT, "spaces.knobs.KNOBS")
    assert reaches_up("search.decide", "search.tune.searcher.Limits")
    assert reaches_up("results", "timellm.run.training.TrainingRun")
    assert not reaches_up("results", "timellm.contract.columns.State")


def test_a_module_that_reaches_up_is_found_in_a_tree(tmp_path):
    tree = {
        "timellm/contract/numbers.py": "import json\nfrom spaces.knobs import KNOBS\n",
        "search/decide/loop.py": "def next():\n    import ray\n    from search.tune.searcher import LoopSearcher\n",
        "search/session.py": "import ray\nfrom search.decide.loop import Loop\n",
        "results/commands.py": "from timellm.contract.columns import State\nimport timellm.run.training\n",
    }
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert {room: found for room in FORBIDDEN if (found := upward_imports(room, tmp_path))} == {
        CONTRACT: {"timellm/contract/numbers.py imports spaces.knobs.KNOBS"},
        "search.decide": {
            "search/decide/loop.py imports ray",
            "search/decide/loop.py imports search.tune.searcher.LoopSearcher",
        },
        "search": {"search/session.py imports ray"},
        "results": {"results/commands.py imports timellm.run.training"},
    }


@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks"])
def test_no_module_takes_a_private_name_from_another(folder):
    found = {str(path.relative_to(ROOT)): private_imports(path.read_text()) for path in modules_of(folder)}

    assert {path: names for path, names in found.items() if names} == {}


def test_no_test_imports_a_private_name():
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules_of("tests")
        for name in imported(path)
        if is_ours(name) and is_private(name)
    }

    assert found == set()


def test_no_test_of_the_loop_replaces_a_private_name():
    of_the_loop = [path for path in modules_of("tests/search") if any(is_in(name, LOOP) for name in imported(path))]
    found = {path.name: private_patches(path.read_text()) for path in of_the_loop}

    assert "test_loop.py" in found
    assert {path: names for path, names in found.items() if names} == {}


def test_no_test_reaches_a_private_name():
    private = own_private_names()
    found = {str(path.relative_to(ROOT)): private_reaches(path.read_text(), private) for path in modules_of("tests")}

    assert len(private) > 500
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "loop._begun()",
        "Loop(1).parts[0]._begun",
        "monkeypatch.setattr(loop, '_begun', 1)",
        "monkeypatch.setattr('search.decide.loop._begun', 1)",
        "from search.decide.loop import Loop\nclass Played(Loop):\n    def _begun(self): ...",
    ],
)
def test_a_private_name_that_a_test_reaches_is_found(text):
    assert private_reaches(text, {"_begun"}) == {"_begun"}
    assert private_reaches(text.replace("_begun", "begun"), {"_begun"}) == set()
    assert private_reaches("os._exit(1)\nself._begun = 1", {"_begun"}) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from timellm.machine.contention import _own_seconds",
        "from timellm.machine import contention\ncontention._own_seconds(1)",
        "def late():\n    from search.decide._loop import Loop",
    ],
)
def test_a_private_name_of_another_module_is_found(text):
    assert private_imports(text)
    assert not private_imports(text.replace("._", ".").replace(" _", " "))


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setattr(loop, '_begun', 1)",
        "mock.patch('search.decide.loop.Loop._begun')",
        "loop._begun = 1",
        "from search.decide.loop import Loop\nclass Played(Loop):\n    def _begun(self): ...",
    ],
)
def test_a_private_name_that_is_replaced_is_found(text):
    assert private_patches(text)
    assert not private_patches(text.replace("_begun", "begun"))


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
