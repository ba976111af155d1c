"""What is decided in one place: a second definition, found in the sources by what gives it away, fails here."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from timellm.contract.colours import DARK, LIGHT
from timellm.contract.config import RunConfig

ROOT = Path(__file__).parents[1]
PALETTE = {colour for colours in (LIGHT, DARK) for colour in colours.values()}
DEFAULTS = RunConfig().to_dict()
FOLDERS = ("spaces", "timellm", "search", "results", "benchmarks")


class Source:
    """A module, looked through once."""

    def __init__(self, text: str) -> None:
        self.nodes = list(ast.walk(ast.parse(text)))
        documents = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        constants = [node for node in self.nodes if isinstance(node, ast.Constant) and id(node) not in documents]
        self.texts = [node.value for node in constants if isinstance(node.value, str)]
        """Whole strings, docstrings left out."""
        self.calls = [(ast.unparse(node.func), node) for node in self.nodes if isinstance(node, ast.Call)]
        """Each call with its function as it is written."""

    def all(self, *kinds: type) -> list[Any]:
        """The nodes of some kinds."""
        return [node for node in self.nodes if isinstance(node, kinds)]

    def names_called(self, *ends: str) -> bool:
        """Whether it calls a function whose name ends so."""
        return any(name.endswith(ends) for name, _ in self.calls)

    def says(self, *parts: str) -> bool:
        """Whether one of its strings holds one of some texts."""
        return any(part in text for text in self.texts for part in parts)


def any_text(*wanted: str) -> Callable[[Source], bool]:
    """Whether a module has one of some strings."""
    return lambda source: any(text in wanted for text in source.texts)


def moves_a_file(source: Source) -> bool:
    """`os.replace(a, b)` or `path.replace(other)`: that of a text has two arguments, a dataclass's has names."""
    return any(
        name in ("os.replace", "os.rename", "shutil.move")
        or (name.endswith(".replace") and len(call.args) == 1 and not call.keywords)
        for name, call in source.calls
    )


def takes_a_line_of_an_error(source: Source) -> bool:
    """`str(error).splitlines()` or `str(error).split()`, whatever is done with it."""
    return any(re.match(r"str\((error|problem|exception)\)\.split(lines)?$", name) for name, _ in source.calls)


def ends_with_a_number(source: Source) -> bool:
    """An exit status as a number: of 2 or 130, or of any in a call that ends a process."""
    for name, call in source.calls:
        if name in ("SystemExit", "sys.exit", "os._exit") and isinstance(
            call.args[0] if call.args else None, ast.Constant
        ):
            return call.args[0].value in (2, 130)  # type: ignore[attr-defined]
    statuses = [node.value.value for node in source.all(ast.Return) if isinstance(node.value, ast.Constant)]
    numbers = [node.value.value for node in source.all(ast.Assign) if isinstance(node.value, ast.Constant)]
    return 130 in [*statuses, *numbers] or any(status == 2 and type(status) is int for status in statuses)


def makes_a_parser(source: Source) -> bool:
    """A parser of argparse's own, or a class that says errors in another way."""
    bases = [ast.unparse(base) for node in source.all(ast.ClassDef) for base in node.bases]
    return any(base.endswith("Parser") for base in bases) or source.names_called("ArgumentParser")


def prints_a_wrong_input(source: Source) -> bool:
    """A handler of `InputError` that prints to stderr."""
    return any(
        ast.unparse(call.func) == "print" and any(ast.unparse(word.value) == "sys.stderr" for word in call.keywords)
        for handler in source.all(ast.ExceptHandler)
        if handler.type is not None and "InputError" in ast.unparse(handler.type)
        for call in ast.walk(handler)
        if isinstance(call, ast.Call)
    )


def orders_the_objectives(source: Source) -> bool:
    """Both objectives in a row, kept under a name or returned."""
    kept = [node.value for node in source.all(ast.Assign, ast.AnnAssign, ast.Return)]
    rows = [value.elts for value in kept if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == 2]
    known = {"SECONDS_PER_EPOCH", "VAL_MSE", "'seconds_per_epoch'", "'val_mse'"}
    return any({ast.unparse(name) for name in row} <= known for row in rows)


def reads_a_manifest_by_key(source: Source) -> bool:
    """`manifest["name"]`, `evidence.manifest.get("name")`, `folder.read_manifest()["name"]`."""
    keyed = [(node.value, node.slice) for node in source.all(ast.Subscript)]
    keyed += [(call.func.value, call.args[0]) for name, call in source.calls if name.endswith(".get") and call.args]  # type: ignore[attr-defined]
    named = [holder for holder, key in keyed if isinstance(getattr(key, "value", None), str)]
    return any(re.search(r"manifest(\(\)|\.values)?$", ast.unparse(holder)) for holder in named)


def weighs_time(source: Source) -> bool:
    """A weight of 0.05."""
    kept = [node for node in source.all(ast.Assign, ast.AnnAssign) if isinstance(node.value, ast.Constant)]
    return any(
        node.value.value == 0.05 and "weight" in ast.unparse(target).lower()
        for node in kept
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


def names_a_knobs_column(source: Source) -> bool:
    """`f"config/{name}"`, or one such column."""
    begun = [node.values[0] for node in source.all(ast.JoinedStr) if node.values]
    return any(getattr(part, "value", None) == "config/" for part in begun) or any(
        re.fullmatch(r"config/[a-z_]+", text) for text in source.texts
    )


def names_an_event(source: Source) -> bool:
    """A dict whose `event` is a text, or a comparison of one's `event` with a text."""
    made = [
        value
        for node in source.all(ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if getattr(key, "value", None) == "event"
    ]
    asked = [node for node in source.all(ast.Compare) if re.search(r"\[?'event'[\])]$", ast.unparse(node.left))]
    compared = [part for node in asked for part in ast.walk(node.comparators[0])]
    return any(isinstance(getattr(part, "value", None), str) for part in [*made, *compared])


def repeats_defaults(source: Source) -> bool:
    """A field with the name and the default of a run's setting, or a dict of six such settings or more."""
    pairs = [(node.target.id, node.value) for node in source.all(ast.AnnAssign) if isinstance(node.target, ast.Name)]
    dicts = [[(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values, strict=True)]
             for node in source.all(ast.Dict)]  # fmt: skip
    return any(map(is_default, pairs)) or any(sum(map(is_default, some)) >= 6 for some in dicts)


def is_default(pair: tuple[Any, Any]) -> bool:
    name, value = pair
    known = DEFAULTS.get(name) if isinstance(name, str) else None
    return (
        known is not None
        and isinstance(value, ast.Constant)
        and (value.value, type(value.value))
        == (
            known,
            type(known),
        )
    )


def writes_zero2(source: Source) -> bool:
    """A dict with DeepSpeed's keys."""
    keys = {getattr(key, "value", None) for node in source.all(ast.Dict) for key in node.keys}
    return bool(keys & {"zero_optimization", "reduce_bucket_size", "zero_force_ds_cpu_optimizer"})


def limits_a_setting(source: Source) -> bool:
    """A declared limit, or a dict that gives settings numbers under a name that speaks of limits."""
    named = [node for node in source.all(ast.Assign, ast.AnnAssign) if isinstance(node.value, ast.Dict)]
    tables = [
        node
        for node in named
        if re.search(r"least|most|limit|range|bound|minim|maxim", ast.unparse(node).split("=")[0], re.IGNORECASE)
    ]
    settings = {getattr(key, "value", None) for node in tables for key in node.value.keys} & set(DEFAULTS)
    return len(settings) > 1 or any(name in ("AtLeast", "AtMost", "Above", "Below") for name, _ in source.calls)


def reads_a_state_from_a_sentence(source: Source) -> bool:
    """`"trial_timeout" in self._killed_for`: a text looked for in a reason, an error or what ended a worker."""
    return any(
        isinstance(node.left, ast.Constant)
        and isinstance(node.left.value, str)
        and isinstance(node.ops[0], ast.In | ast.NotIn)
        and re.search(r"(killed|reason|error|stopped|asked)\w*$", ast.unparse(node.comparators[0]))
        for node in source.all(ast.Compare)
    )


@dataclass(frozen=True)
class Once:
    """A thing that is decided in one module."""

    what: str
    home: str
    gives_away: Callable[[Source], bool]
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
        "the folder of the packages",
        "timellm/machine/process.py",
        lambda source: any(ast.unparse(node).endswith(".parents[2]") for node in source.all(ast.Subscript)),
        "ROOT = Path(__file__).resolve().parents[2]",
    ),
    Once(
        "where a search stands",
        "timellm/contract/columns.py",
        any_text("finished"),
        "manifest.update(rows, 'finished')",
    ),
    Once(
        "names of the picks",
        "timellm/contract/layout.py",
        any_text("fastest", "accurate"),
        "chosen = {'fastest': rows.iloc[0]}",
    ),
    Once(
        "kinds of a training's events",
        "timellm/contract/job.py",
        names_an_event,
        "if event.get('event') == 'validation': ...",
    ),
    Once(
        "places in a trial's folder",
        "timellm/contract/layout.py",
        lambda source: any(
            getattr(node.right, "value", None) in ("stop", "error", "retimed", "probe", "control", "interrupt")
            for node in source.all(ast.BinOp)
            if isinstance(node.op, ast.Div)
        ),
        "folder = trial.folder.path / 'retimed'",
    ),
    Once(
        "the column of a knob",
        "timellm/contract/columns.py",
        names_a_knobs_column,
        "settings = {name: row[f'config/{name}'] for name in names}",
    ),
    Once(
        "keys of a manifest",
        "timellm/contract/manifest.py",
        reads_a_manifest_by_key,
        "budget = evidence.manifest.get('time_budget_seconds')",
    ),
    Once("moving a file into place", "timellm/contract/files.py", moves_a_file, "os.replace(temporary, path)"),
    Once(
        "an error in one line",
        "timellm/contract/errors.py",
        takes_a_line_of_an_error,
        "reason = ' '.join(str(error).split())",
    ),
    Once(
        "a long text shortened",
        "timellm/contract/words.py",
        lambda source: source.says(" characters)"),
        "got = f'{text[:80]}... ({len(text)} characters)'",
    ),
    Once(
        "times in files",
        "timellm/contract/words.py",
        lambda source: (
            source.says("%S+00:00") or any(word.arg == "timespec" for _, call in source.calls for word in call.keywords)
        ),
        "started = time.strftime('%Y-%m-%dT%H:%M:%S+00:00', time.gmtime(seconds))",
    ),
    Once(
        "usable cores, and what a control group allows",
        "timellm/machine/cores.py",
        lambda source: source.names_called("cpu_count", "sched_getaffinity") or source.says("/sys/fs/cgroup"),
        "threads = os.cpu_count() or 1",
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
        lambda source: source.says(*PALETTE),
        "style = 'color:#5a626c'",
    ),
    Once(
        "what the guide expects",
        "results/analysis/guide.py",
        lambda source: any(re.search(r"\bmin per epoch|[0-9] to [0-9.]+×", text) for text in source.texts),
        "GUIDE_WORDS = {'plan-a': '15 to 25 min per epoch'}",
    ),
    Once(
        "the start of NVML",
        "timellm/machine/nvml.py",
        lambda source: source.names_called("nvmlInit"),
        "pynvml.nvmlInit()",
    ),
    Once(
        "durations in words",
        "timellm/contract/words.py",
        lambda source: any(name == "divmod" and ast.unparse(call.args[1]) == "60" for name, call in source.calls),
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
        weighs_time,
        "time_weight: float = 0.05",
    ),
    Once(
        "walking the tree of processes",
        "timellm/machine/periodic.py",
        lambda source: source.names_called(".children"),
        "psutil.Process().children(recursive=True)",
    ),
    Once(
        "defaults of a run",
        "timellm/contract/config.py",
        repeats_defaults,
        "class Options:\n    features: str = 'M'\n    seed: int = 2021",
    ),
    Once(
        "the scaling of the learning rate",
        "timellm/contract/config.py",
        lambda source: any(
            {getattr(key, "value", None) for key in node.keys} == {"none", "sqrt", "linear"}
            for node in source.all(ast.Dict)
        ),
        "factor = {'none': 1.0, 'sqrt': math.sqrt(world), 'linear': world}[rule]",
    ),
    Once(
        "limits of a setting",
        "timellm/contract/config.py",
        limits_a_setting,
        "_AT_LEAST = {'seq_len': 1, 'percent': 1}",
    ),
    Once(
        "the DeepSpeed JSON of a run",
        "timellm/contract/zero2.py",
        writes_zero2,
        "settings = {'zero_optimization': {'stage': 2}, 'steps_per_print': 100}",
    ),
    Once(
        "the state that a worker's end gives its trial",
        "timellm/contract/job.py",
        reads_a_state_from_a_sentence,
        "state = 'failed' if 'trial_timeout' in self._killed_for else 'interrupted'",
    ),
    Once(
        "the cache folder",
        "timellm/cache.py",
        any_text("TIMELLM_CACHE_DIR", ".cache"),
        "folder = Path.home() / '.cache' / 'timellm'",
    ),
)


OPTIONS = ("search/setup/options.py", "timellm/estimate_training_time.py", "timellm/forecast.py", "timellm/run_main.py")
ALSO_AT_HOME = {"limits of a setting": (*OPTIONS, "timellm/machine/cores.py", "timellm/contract/declarations.py")}
"""A command's options are declared as settings are, where the command stands."""

FOREIGN = {"timellm/arguments.py", "timellm/published.py"}
"""Have the flags of published scripts and of launchers, which are no options of the project's."""


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    """Every module of the project by its path."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): Source(path.read_text()) for path in paths}


@pytest.mark.parametrize("once", DECISIONS, ids=lambda once: once.what)
def test_what_is_decided_stands_in_one_module(once, sources):
    homes = (once.home, *ALSO_AT_HOME.get(once.what, ()))

    assert [path for path, source in sources.items() if path not in homes and once.gives_away(source)] == []


@pytest.mark.parametrize("once", DECISIONS, ids=lambda once: once.what)
def test_a_second_definition_is_found(once):
    assert (ROOT / once.home).is_file()
    assert once.gives_away(Source(once.example))


def test_every_flag_is_made_from_a_declared_option(sources):
    by_hand = {
        path: [word for name, call in source.calls if name.endswith(".add_argument") for word in names_of_flags(call)]
        for path, source in sources.items()
        if not path.startswith("benchmarks") and path not in FOREIGN
    }
    unused = "timellm/estimate_training_time.py"  # the flags of run_main.py that have no effect there
    assert {path for path, flags in by_hand.items() if flags} == {"timellm/contract/flags.py", unused}


def names_of_flags(call: ast.Call) -> list[str]:
    return [text for argument in call.args if (text := ast.unparse(argument)).lstrip("f")[1:2] == "-"]
