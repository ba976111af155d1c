"""The worked examples of CONTRIBUTING are true: each is applied to a copy of the project, which then can do it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.timellm.tiny_backbones import save_tiny

ROOT = Path(__file__).parents[1]
COPIED = ("timellm", "spaces", "search", "results", "tests", "pyproject.toml")


def changes() -> dict[str, str]:
    """The changes of each section "Add a ..." by its title."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^### (Add a .*?)\n.*?^```diff\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def apply(change: str, root: Path) -> None:
    """Apply a change: lines with a plus are new, the others are found in the file, once, and kept."""
    for path, body in re.findall(r"^--- (\S+)\n(.*?)(?=^--- |\Z)", change, re.DOTALL | re.MULTILINE):
        lines = body.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in lines)
        text = (root / path).read_text()
        assert text.count(before) == 1, f"{path} holds {text.count(before)} times: {before}"
        (root / path).write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A copy of the project with every worked example applied."""
    root = tmp_path_factory.mktemp("changed")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    for change in changes().values():
        apply(change, root)
    return root


def run(changed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(changed), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *command], cwd=changed, env=environment, capture_output=True, text=True)


def test_a_data_set_a_knob_and_a_sampler_are_worked_out():
    assert list(changes()) == ["Add a data set", "Add a knob", "Add a sampler"]


def test_a_knob_is_declared_in_one_place():
    product = re.findall(r"^--- (\S+)", changes()["Add a knob"], re.MULTILINE)
    declaring = [path for path in product if not path.startswith("timellm/optimize/")]

    assert declaring == ["timellm/contract/config.py"]


def test_what_was_added_keeps_its_contract(changed):
    chosen = "Harbour or Qmc or held_to_the_contract"
    files = ("tests/timellm/test_data_datasets.py", "tests/search/test_samplers.py")
    ended = run(changed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files)

    assert ended.returncode == 0, ended.stdout


def test_a_search_of_the_new_knob_on_the_new_data_with_the_new_sampler_is_planned(changed, tmp_path):
    save_tiny("gpt2", tmp_path)
    dates = pd.date_range("2020-01-01", periods=1500, freq="h")
    values = np.sin(np.arange(1500) / 24)
    pd.DataFrame({"date": dates, "wind": -values, "level": values}).to_csv(tmp_path / "harbour.csv", index=False)
    arguments = ["--space", "smoke", "--llm_model", "gpt2", "--llm_path", str(tmp_path), "--runs_dir", str(tmp_path)]
    arguments += ["--data", "harbour", "--root_path", str(tmp_path)]
    arguments += ["--sampler", "qmc", "--set", "adam_beta2=0.99,0.999"]

    ended = run(changed, "search/run.py", "--dry_run", *arguments)

    assert ended.returncode == 0, ended.stderr
    assert "adam_beta2: 0.99, 0.999" in ended.stdout
    assert "Nothing was trained." in ended.stdout
