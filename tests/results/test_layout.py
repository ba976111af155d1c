import json
from pathlib import Path

import pytest

from timellm.contract.errors import InputError
from timellm.contract.files import replace_files, write_atomically
from timellm.contract.layout import PICKS, RunFolder
from timellm.contract.manifest import Control, Manifest


def test_every_file_lies_in_the_run_folder(tmp_path):
    folder = RunFolder(tmp_path / "t1")

    files = [folder.manifest, folder.trials_csv, folder.trials_parquet, folder.study, folder.ray, folder.report]
    files += [folder.plots, folder.recommended_command, folder.errors, folder.trial("a").job, folder.trial("a").result]
    files += [folder.trial("a").events, folder.trial("a").log, folder.trial("a").deepspeed_config]
    for pick in map(folder.recommendation, PICKS):
        files += [pick.command, pick.run_config, pick.deepspeed_config, pick.reasons]

    assert len(set(files)) == len(files)
    assert all(path.is_relative_to(folder.path) for path in files)
    assert folder.name == "t1"


def test_a_relative_path_stays_the_same_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("runs/t1")
    monkeypatch.chdir("/")

    assert folder.path == tmp_path / "runs/t1"


def test_the_manifest_comes_back_as_it_was_written(tmp_path):
    folder = RunFolder(tmp_path)
    manifest = Manifest(name="t1", seed=3, controls=(Control(name="naïve", val_mse=0.5),), other={"later": [1]})
    folder.write_manifest(manifest)

    assert folder.read_manifest() == manifest


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"run folder is needed, but .*nowhere does not exist"):
        RunFolder(tmp_path / "nowhere").read_manifest()


def test_a_folder_without_manifest_is_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds manifest\.json"):
        RunFolder(tmp_path).read_manifest()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_manifest_is_said(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(InputError, match=r"manifest\.json must"):
        RunFolder(tmp_path).read_manifest()


def test_a_failed_write_leaves_every_old_file_and_no_other(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    replace_files({first: "old a", second: "old b"})

    with pytest.raises(TypeError):
        replace_files({first: "new a", second: None})  # type: ignore[dict-item]

    assert (first.read_text(), second.read_text()) == ("old a", "old b")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_writing_creates_the_folder(tmp_path):
    write_atomically(tmp_path / "deep" / "er" / "x.json", json.dumps({}))

    assert Path(tmp_path / "deep" / "er" / "x.json").read_text() == "{}"
