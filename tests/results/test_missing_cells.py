"""Tables with empty cells, as other tools and edits leave them: concluded from with care, or refused in one line."""

import contextlib

import pytest

from results.analysis.picks import PickName, recommend
from results.analysis.table import load_trials
from tests.results.synthetic import FIDELITY, make_rows, make_run
from timellm.contract.errors import InputError


def _rows() -> list[dict]:
    return [{**row, "is_projected": True, **FIDELITY} for row in make_rows(12)]


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_with_empty_cells_is_concluded_from_or_refused(tmp_path, first):
    folder = make_run(tmp_path / "run", _rows()[:8])
    whole, manifest = load_trials(folder.path), folder.read_manifest()
    columns = whole.columns.drop("trial_id")[first::2]
    assert len(columns) > 20
    for column in columns:
        table = whole.copy()
        table[column] = table[column].mask(table.index % 2 == 0)
        with contextlib.suppress(InputError):
            recommend(table, manifest)


@pytest.mark.parametrize(("is_projected", "counts"), [(False, True), (True, False), (None, False)])
def test_rows_that_do_not_say_whether_they_are_projected_are_judged_as_if_they_were(tmp_path, is_projected, counts):
    rows = [{**row, "is_projected": is_projected} for row in _rows()]
    best = next(row for row in rows[1:] if row["state"] == "complete")
    best |= {"val_mse": 0.2, "config/batch_size": 1}
    folder = make_run(tmp_path / "run", rows)

    accurate = recommend(load_trials(folder.path), folder.read_manifest()).pick(PickName.ACCURATE)

    assert (accurate.row["trial_id"] == best["trial_id"]) is counts, "it made more optimizer steps"
