"""What is decided in one place: a second definition, found in the sources by what gives it away, fails here."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from timellm.contract.colours import DARK, LIGHT

ROOT = Path(__file__).parents[1]
PALETTE = {colour for colours in (LIGHT, DARK) for colour in colours.values()}
FOLDERS = ("spaces", "timellm", "search", "results", "benchmarks")


def texts(tree: ast.AST) -> Iterator[str]:
    """Whole strings of a module, without its docstrings."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def any_text(*wanted: str) -> Callable[[ast.AST], bool]:
    """Whether a module has one of some strings."""
    return lambda tree: any(text in wanted for text in texts(tree))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with its function as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def moves_a_file(tree: ast.AST) -> bool:
    """`os.replace(a, b)` or `path.replace(other)`: that of a text has two arguments, a dataclass's has names."""
    return any(
        name in ("os.replace", "os.rename", "shutil.move")
        or (name.endswith(".replace") and len(call.args) == 1 and not call.keywords)
        for name, call in calls(tree)
    )


def takes_a_line_of_an_error(tree: ast.AST) -> bool:
    """`str(error).splitlines()`, whatever is done with it."""
    return any(name.startswith("str(") and name.endswith(".splitlines") for name, _ in calls(tree))


def ends_with_a_number(tree: ast.AST) -> bool:
    """An exit status as a number: of 2 or 130, or of any in a call that ends a process."""
    for name, call in calls(tree):
        if name in ("SystemExit", "sys.exit", "os._exit") and isinstance(
            call.args[0] if call.args else None, ast.Constant
        ):
            return call.args[0].value in (2, 130)  # type: ignore[attr-defined]
    returned = (node.value for node in ast.walk(tree) if isinstance(node, ast.Return))
    assigned = (node.value for node in ast.walk(tree) if isinstance(node, ast.Assign))
    statuses = [value.value for value in returned if isinstance(value, ast.Constant)]
    numbers = [value.value for value in assigned if isinstance(value, ast.Constant)]
    return 130 in [*statuses, *numbers] or any(status == 2 and type(status) is int for status in statuses)


def makes_a_parser(tree: ast.AST) -> bool:
    """A parser of argparse's own, or a class that says errors in another way."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return any(ast.unparse(base).endswith("Parser") for node in classes for base in node.bases) or any(
        name.endswith("ArgumentParser") for name, _ in calls(tree)
    )


def prints_a_wrong_input(tree: ast.AST) -> bool:
    """A handler of `InputError` that prints to stderr."""
    handlers = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is not None)
    return any(
        name == "print" and any(ast.unparse(word.value) == "sys.stderr" for word in call.keywords)
        for handler in handlers
        if "InputError" in ast.unparse(handler.type)  # type: ignore[arg-type]
        for name, call in calls(handler)
    )


def orders_the_objectives(tree: ast.AST) -> bool:
    """Both objectives in a row, kept under a name or returned."""
    kept = (node.value for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign | ast.Return))
    rows = (value.elts for value in kept if isinstance(value, ast.Tuple | ast.List))
    known = {"SECONDS_PER_EPOCH", "VAL_MSE", "'seconds_per_epoch'", "'val_mse'"}
    return any(len(row) == 2 and {ast.unparse(name) for name in row} <= known for row in rows)


def reads_a_manifest_by_key(tree: ast.AST) -> bool:
    """`manifest["name"]`, `evidence.manifest.get("name")`, `folder.read_manifest()["name"]`."""
    keyed = [(node.value, node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    keyed += [(call.func.value, call.args[0]) for name, call in calls(tree) if name.endswith(".get") and call.args]  # type: ignore[attr-defined]
    return any(
        re.search(r"manifest(\(\)|\.values)?$", ast.unparse(holder)) and isinstance(getattr(key, "value", None), str)
        for holder, key in keyed
    )


@dataclass(frozen=True)
class Once:
    """A thing that is decided in one module."""

    what: str
    home: str
    gives_away: Callable[[ast.AST], bool]
    """Whether a module defines it."""
    example: str
    """A second definition, as it would be written."""


DECISIONS = (
    Once(
        "states",
        "timellm/contract/columns.py",
        any_text("out_of_memory", "stopped_early", "diverged"),
        "STATES = ('complete', 'stopped_early')",
    ),
    Once("clean and contended", "timellm/contract/columns.py", any_text("clean", "contended"), "quality = 'contended'"),
    Once(
        "names of a run folder's files",
        "timellm/contract/layout.py",
        any_text(
            "trials.csv",
            "trials.parquet",
            "study.db",
            "report.html",
            "why.md",
            "run.json",
            "command.sh",
            "errors.jsonl",
        ),
        "path = folder / 'trials.csv'",
    ),
    Once(
        "names of a trial's files",
        "timellm/contract/layout.py",
        any_text(
            "job.json", "result.json", "events.jsonl", "run.log", "ds_config_zero2.json", "checkpoint.safetensors"
        ),
        "RESULT = 'result.json'",
    ),
    Once(
        "keys of a manifest",
        "timellm/contract/manifest.py",
        reads_a_manifest_by_key,
        "budget = evidence.manifest.get('time_budget_seconds')",
    ),
    Once("moving a file into place", "timellm/contract/files.py", moves_a_file, "os.replace(temporary, path)"),
    Once(
        "the first line of an error",
        "timellm/contract/errors.py",
        takes_a_line_of_an_error,
        "reason = str(error).splitlines()[0]",
    ),
    Once("exit statuses", "timellm/contract/errors.py", ends_with_a_number, "def main():\n    return 2"),
    Once(
        "the parser of command lines",
        "timellm/contract/flags.py",
        makes_a_parser,
        "class Flags(StrictParser):\n    def error(self, message): ...",
    ),
    Once(
        "printing a wrong input",
        "timellm/contract/errors.py",
        prints_a_wrong_input,
        "try: ...\nexcept InputError as error: print(error, file=sys.stderr)",
    ),
    Once(
        "the palette",
        "timellm/contract/colours.py",
        lambda tree: any(colour in text for text in texts(tree) for colour in PALETTE),
        "style = 'color:#5a626c'",
    ),
    Once(
        "what the guide expects",
        "results/analysis/guide.py",
        lambda tree: any(re.search(r"\bmin per epoch|[0-9] to [0-9.]+×", text) for text in texts(tree)),
        "GUIDE_WORDS = {'plan-a': '15 to 25 min per epoch'}",
    ),
    Once(
        "the start of NVML",
        "timellm/machine/nvml.py",
        lambda tree: any(name.endswith("nvmlInit") for name, _ in calls(tree)),
        "pynvml.nvmlInit()",
    ),
    Once(
        "durations in words",
        "timellm/contract/words.py",
        lambda tree: any(name == "divmod" and ast.unparse(call.args[1]) == "60" for name, call in calls(tree)),
        "minutes, rest = divmod(round(seconds), 60)",
    ),
    Once(
        "the order of the objectives",
        "timellm/contract/columns.py",
        orders_the_objectives,
        "def names():\n    return [VAL_MSE, SECONDS_PER_EPOCH]",
    ),
    Once(
        "the weight of time",
        "timellm/contract/columns.py",
        lambda tree: any(
            "weight" in ast.unparse(target).lower() and isinstance(node.value, ast.Constant)
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign | ast.Assign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(node.value, ast.Constant) and node.value.value == 0.05
        ),
        "time_weight: float = 0.05",
    ),
    Once(
        "walking the tree of processes",
        "timellm/machine/periodic.py",
        lambda tree: any(name.endswith(".children") for name, _ in calls(tree)),
        "psutil.Process().children(recursive=True)",
    ),
)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    """Every module of the project by its path."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


@pytest.mark.parametrize("once", DECISIONS, ids=lambda once: once.what)
def test_what_is_decided_stands_in_one_module(once, trees):
    assert [path for path, tree in trees.items() if path != once.home and once.gives_away(tree)] == []


@pytest.mark.parametrize("once", DECISIONS, ids=lambda once: once.what)
def test_a_second_definition_is_found(once):
    assert (ROOT / once.home).is_file()
    assert once.gives_away(ast.parse(once.example))
