"""Prompts on disk that grow: whatever is killed or damaged, a prompt is right or not there."""

import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timellm.prompts.growing import GrowingStore

PROMPTS = 500


def ids_of(row):
    return [(row * 31 + place) % 50_000 for place in range(5 + row % 7)]


def fill(folder, rows, count=PROMPTS):
    store = GrowingStore(folder, count, np.uint16)
    for part in np.array_split(np.asarray(rows), max(1, len(rows) // 10)):
        store.add(part, [ids_of(row) for row in part.tolist()])
    return store


def wrong(store, rows=range(PROMPTS)):
    """Prompts that are there and are not what was written."""
    return [
        row
        for row, ids in zip(rows, store.find(np.asarray(rows)), strict=True)
        if ids is not None and (ids.tolist() != ids_of(row))
    ]


def missing(store, rows=range(PROMPTS)):
    return [row for row, ids in zip(rows, store.find(np.asarray(rows)), strict=True) if ids is None]


def test_what_was_added_is_found_and_nothing_else(tmp_path):
    store = fill(tmp_path / "key", range(0, PROMPTS, 2))
    assert missing(store) == list(range(1, PROMPTS, 2))
    assert wrong(store) == []
    assert store.count() == PROMPTS // 2
    again = pickle.loads(pickle.dumps(store))
    assert len(again) == PROMPTS
    assert missing(again) == missing(store)


def test_several_processes_write_at_once(tmp_path):
    parts = [range(300), range(200, 500), range(100, 400), range(0, 500, 3)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.starmap(_fill_there, [(tmp_path / "key", list(part)) for part in parts])
    store = GrowingStore(tmp_path / "key", PROMPTS, np.uint16)
    assert (missing(store), wrong(store)) == ([], [])


def _fill_there(folder, rows):
    fill(folder, rows)


def test_a_process_that_is_killed_leaves_nothing_wrong_and_the_next_goes_on(tmp_path):
    context = multiprocessing.get_context("fork")
    for seed in range(6):
        begun = context.Event()
        process = context.Process(target=_fill_until_killed, args=(tmp_path / "key", begun, seed))
        process.start()
        begun.wait()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = GrowingStore(tmp_path / "key", PROMPTS, np.uint16)
        assert wrong(store) == []
    left = missing(store)
    assert len(left) < PROMPTS
    store.add(np.array(left or [0]), [ids_of(row) for row in left or [0]])
    assert (missing(store), wrong(store)) == ([], [])


def _fill_until_killed(folder, begun, seed):
    order = np.random.default_rng(seed).permutation(PROMPTS)
    store = fill(folder, order[:20])
    begun.set()
    while True:
        for row in order.tolist():
            store.add(np.array([row]), [ids_of(row)])


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "key"
    fill(folder, np.random.default_rng(0).permutation(PROMPTS)[:400])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(
    st.sampled_from(["index.bin", "ids.bin"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=20)), max_size=5),
    st.none() | st.floats(0, 1),
)
def test_damage_makes_prompts_missing_and_never_wrong(contents, tmp_path_factory, name, changes, kept_share):
    """Bytes change, or the end is lost, as after a power cut; a longer index is another index and is begun anew."""
    damaged = bytearray(contents[name])
    for place, change in changes:
        start = int(place * len(damaged))
        damaged[start : start + len(change)] = change[: len(damaged) - start]
    if kept_share is not None:
        damaged = damaged[: int(kept_share * len(damaged))]
    folder = tmp_path_factory.mktemp("damaged") / "key"
    folder.mkdir()
    for other, content in {**contents, name: bytes(damaged)}.items():
        (folder / other).write_bytes(content)
    store = GrowingStore(folder, PROMPTS, np.uint16)
    assert wrong(store) == []
    left = missing(store)
    if left:
        store.add(np.array(left), [ids_of(row) for row in left])
    assert (missing(store), wrong(store)) == ([], [])
