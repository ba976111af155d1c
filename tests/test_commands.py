"""The commands, by path and by name: which checkout they run, and that they are there."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "spaces", "results", "timellm")
OWN_CHECKOUT_FIRST = """if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
"""
BY_PATH = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).glob("*.py")
    if "sys.path" in path.read_text()
)


def test_the_path_of_modules_is_touched_by_the_commands_alone_and_in_one_way():
    found = {
        path.relative_to(ROOT)
        for folder in (*PACKAGES, "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if "sys.path" in path.read_text() and path != Path(__file__)
    }

    assert found == set(BY_PATH)
    assert {Path("search/run.py"), Path("timellm/run_main.py"), Path("results/report.py")} <= found
    assert [path for path in BY_PATH if (ROOT / path).read_text().count("sys.path") != 1] == []
    assert [path for path in BY_PATH if OWN_CHECKOUT_FIRST not in (ROOT / path).read_text()] == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the packages that says so when any of it is imported."""
    folder = tmp_path_factory.mktemp("copied")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "timellm" / "contract" / "errors.py").write_text("raise SystemExit('the copy runs')\n")
    return folder


@pytest.mark.parametrize("command", BY_PATH, ids=str)
def test_a_command_run_from_a_copy_uses_the_copy(copied, command, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as an installed one is found

    done = subprocess.run(
        [sys.executable, str(copied / command), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stderr.strip() == "the copy runs"


def test_every_command_has_an_entry_point():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert {"timellm-search", "timellm-train", "timellm-estimate", "timellm-report"} <= set(scripts)
    for name, target in scripts.items():
        module, function = target.split(":")
        assert f"`{name}`" in getattr(import_module(module), function).__doc__


@pytest.mark.parametrize("name", ["timellm", "timellm.contract", "spaces", "results", "search"])
def test_importing_a_package_loads_neither_torch_nor_ray(name):
    program = f"import sys, {name}; print(sorted({{'torch', 'ray', 'transformers'}} & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )

    assert done.stdout.strip() == "[]"
