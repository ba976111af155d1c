"""The prompt memory: what is read is what was computed, or it is computed again."""

import errno
import hashlib
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from tests.timellm.tiny_runs import CPU, options, tiny_config
from timellm.backbones import resolve_backbone
from timellm.run.preparation import prepare
from timellm.run.prompt_memory import PromptFolder, folder, segment
from timellm.run.prompt_memory.key import memory_key, prompt_name
from timellm.run.training import TrainingRun

LAYERS, TOKEN_BYTES = 3, 4096
MIB = 2**20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(autouse=True)
def small_disk_is_enough(monkeypatch):
    monkeypatch.setattr(folder, "FREE_BYTES", 0)


def name_of(number) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def tokens_of(number) -> int:
    return 1 + number % 7


def data_of(number, layers=LAYERS) -> list[bytes]:
    return [random.Random(f"{number}-{layer}").randbytes(tokens_of(number) * TOKEN_BYTES) for layer in range(layers)]


def opened(root, layers=LAYERS, limit=64 * MIB, key="kind") -> PromptFolder:
    return PromptFolder(root, key, layers, TOKEN_BYTES, limit)


def fill(memory, numbers) -> None:
    for number in numbers:
        memory.add(name_of(number), tokens_of(number), data_of(number))


def held(memory, numbers, layers=LAYERS) -> list[int]:
    """Numbers that are found; each is checked."""
    found = []
    for number in numbers:
        views = memory.read(name_of(number), tokens_of(number))
        if views is not None:
            assert [bytes(view) for view in views] == data_of(number, layers)
            found.append(number)
    return found


def test_what_one_process_adds_another_reads(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    fill(first, range(20))
    assert held(first, range(30)) == list(range(20))
    assert held(second, range(30)) == []
    second.refresh()
    assert held(second, range(30)) == list(range(20)), "before the writer has closed"
    assert second.read(name_of(3), tokens_of(3) + 1) is None
    first.close()
    assert held(opened(tmp_path, key="other"), range(30)) == []


def test_a_shallower_model_reads_the_first_layers_of_a_deeper_one(tmp_path):
    deep = opened(tmp_path)
    fill(deep, range(5))
    deep.close()
    assert held(opened(tmp_path, layers=2), range(5), layers=2) == list(range(5))
    deeper = opened(tmp_path, layers=4)
    assert deeper.read(name_of(0), tokens_of(0)) is None
    deeper.add(name_of(0), tokens_of(0), data_of(0, 4))
    assert held(deeper, [0], layers=4) == [0]
    assert held(opened(tmp_path), range(5)) == list(range(5))


def test_a_segment_is_continued_by_the_next_run(tmp_path):
    for start in (0, 10):
        memory = opened(tmp_path)
        fill(memory, range(start, start + 10))
        memory.close()
    assert len([path for path in (tmp_path / "kind").iterdir() if path.is_dir()]) == 1
    assert held(opened(tmp_path), range(20)) == list(range(20))


def test_a_changed_byte_or_a_torn_line_is_never_read(tmp_path):
    memory = opened(tmp_path)
    fill(memory, range(6))
    memory.close()
    (path,) = (tmp_path / "kind").iterdir()
    with segment.layer_file(path, 1).open("rb+") as file:
        file.seek(sum(map(tokens_of, range(3))) * TOKEN_BYTES)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    index = path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-9])
    assert held(opened(tmp_path), range(6)) == [0, 1, 2, 4]
    again = opened(tmp_path)
    assert held(again, [3, 5]) == []
    fill(again, [3, 5])
    again.close()
    assert held(opened(tmp_path), range(6)) == list(range(6))


def test_the_limit_holds_for_all_kinds_and_what_was_used_longest_ago_leaves_first(tmp_path):
    limit = 240 * LAYERS * TOKEN_BYTES  # room for four segments of 57 tokens, of which these prompts have 56
    for number, key in enumerate("abcd"):
        memory = opened(tmp_path, limit=limit, key=key)
        fill(memory, range(14))
        memory.close()
        for path in (tmp_path / key).iterdir():
            os.utime(path / "index.jsonl", (number, number))
    assert held(opened(tmp_path, limit=limit, key="a"), [0]) == [0], "reading makes it young again"
    memory = opened(tmp_path, limit=limit, key="e")
    fill(memory, range(14))
    memory.close()
    assert [len(held(opened(tmp_path, key=key), range(14))) for key in "abcde"] == [14, 0, 14, 14, 14]
    used = sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*") if file.is_file())
    assert used <= limit


def test_a_run_that_needs_more_than_the_limit_keeps_what_came_first(tmp_path):
    limit = 100 * LAYERS * TOKEN_BYTES
    memory = opened(tmp_path, limit=limit)
    fill(memory, range(100))
    kept = held(memory, range(100))
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 100
    assert "has room for it" in memory.problem
    tiny = opened(tmp_path / "tiny", limit=10)
    fill(tiny, [0])
    assert "has room for it" in tiny.problem


def test_a_full_disk_ends_the_writing_and_nothing_else(tmp_path, monkeypatch):
    memory = opened(tmp_path)
    fill(memory, range(5))
    write = os.pwrite

    def refuse(file, data, place):
        if place > 6 * TOKEN_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:1000], place)

    monkeypatch.setattr(os, "pwrite", refuse)
    fill(memory, range(5, 10))
    memory.close()
    assert memory.problem == "No space left on device"
    assert held(memory, range(10)) == list(range(5))
    assert held(opened(tmp_path), range(10)) == list(range(5))
    monkeypatch.setattr(folder, "FREE_BYTES", 2**62)
    fill(crowded := opened(tmp_path / "crowded"), [0])
    assert "has room for it" in crowded.problem


def _fill_for_ever(root, numbers) -> None:
    memory = opened(root)
    for number in numbers:
        if memory.read(name_of(number), tokens_of(number)) is None:
            fill(memory, [number])
    memory.close()


def started(root, numbers) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_fill_for_ever, args=(root, numbers))
    process.start()
    return process


def test_two_processes_may_fill_at_once(tmp_path):
    processes = [started(tmp_path, range(100)), started(tmp_path, range(99, -1, -1))]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert held(opened(tmp_path), range(100)) == list(range(100))


def test_a_process_killed_while_it_fills_leaves_nothing_wrong(tmp_path):
    moments = random.Random(0)
    for _ in range(10):
        process = started(tmp_path, range(100_000))
        time.sleep(moments.uniform(0.0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        memory = opened(tmp_path)
        found = held(memory, range(100))
        assert found == list(range(len(found)))
        fill(memory, [100_000 + len(found)])
        assert memory.problem is None
        memory.close()
    _fill_for_ever(tmp_path, range(100))
    assert held(opened(tmp_path), range(100)) == list(range(100))


def test_a_name_is_of_the_whole_prompt_and_of_where_its_own_tokens_begin():
    ids = torch.arange(10)
    names = {prompt_name(ids[:3], ids[3:]), prompt_name(ids[:4], ids[4:]), prompt_name(ids[:3], ids[3:9])}
    assert len(names) == 3
    assert prompt_name(ids[:3], ids[3:]) in names


def test_runs_share_prompts_only_where_all_that_they_depend_on_is_the_same(tiny, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    config = tiny_config(tiny, prompt_prefix="reuse")
    source = resolve_backbone(config.llm_model, config.llm_path, config.llm_weights)

    def key(changed=config, tokenizer="one", dtype=torch.float32) -> str:
        return memory_key(changed, source, tokenizer, dtype, CPU)

    same = key()
    assert key(config.replace(llm_layers=1, batch_size=4, seed=1, learning_rate=0.1)) == same
    keys = {
        same,
        key(tokenizer="two"),
        key(dtype=torch.bfloat16),
        key(config.replace(precision="bf16")),
        key(config.replace(attention="sdpa")),
    }
    monkeypatch.setattr(torch, "__version__", "0.0")
    keys.add(key())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    keys.add(key())
    assert len(keys) == 7


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_forecasts_and_gradients_are_the_same_from_prompts_read_or_computed(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    config = tiny_config(tmp_path, kind=kind, train_samples=32, val_samples=8, prompt_prefix="reuse", dropout=0.0)

    def forecast(changed, limit_gib) -> tuple[list[torch.Tensor], list[torch.Tensor], tuple[int, int]]:
        prepared = prepare(changed, CPU, 0, prompt_memory_gib=limit_gib)
        model = prepared.model.eval()
        forecasts = []
        for cutter, windows in (
            (prepared.train, prepared.windows.passes[0][:16]),
            (prepared.validation, prepared.windows.validation),
        ):
            for batch in cutter(list(windows.split(5))):
                forecasts.append(model(batch.x, batch.prompt))
                (forecasts[-1] - batch.y).square().mean().backward()
        memory = prepared.memory
        if memory is not None:
            memory.close()
        gradients = [parameter.grad for _, parameter in model.trained_parameters()]
        counts = (0, 0) if memory is None else (memory.found, memory.computed)
        return [each.detach() for each in forecasts], gradients, counts

    for changed, expected in ((config, (0, 24)), (config.replace(llm_layers=1), (24, 0))):
        plain, computed, read = forecast(changed, None), forecast(changed, 1.0), forecast(changed, 1.0)
        assert (computed[2], read[2]) == (expected, (24, 0))
        for found in (computed, read):
            torch.testing.assert_close(found[0], plain[0], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found[1], plain[1], rtol=1e-5, atol=1e-6)


def test_an_error_is_the_same_from_the_prompt_memory_and_from_every_prompt_prefix(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"train_samples": 160, "val_samples": 40, "fused_optimizer": True}

    def error(prompt_prefix, **more):
        config = tiny_config(tiny, prompt_prefix=prompt_prefix, **settings)
        return TrainingRun(config, options(tmp_path, clock="error", **more)).run()

    expected = error("recompute").val_mse
    for prompt_prefix in ("reuse", "store"):
        assert error(prompt_prefix).val_mse == pytest.approx(expected, rel=1e-5)
    computed, read = (error("reuse", prompt_memory_gib=1.0) for _ in range(2))
    assert computed.prompt_memory["computed"] == 200
    assert (read.prompt_memory["computed"], read.prompt_memory["found"] >= 200) == (0, True)
    assert [computed.val_mse, read.val_mse] == pytest.approx([expected] * 2, rel=1e-5)
    assert computed.notes == read.notes

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "full"))
    monkeypatch.setattr(os, "pwrite", refuse)
    full = error("store", prompt_memory_gib=1.0)
    assert full.val_mse == pytest.approx(expected, rel=1e-5)
    assert "keeps no further prompts: No space left on device." in full.notes[-1]


def test_runs_on_other_windows_of_a_data_set_keep_the_same_prefix(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    runs = [
        prepare(
            tiny_config(tiny, train_samples=samples, val_samples=1, seed=seed, prompt_prefix="reuse"),
            CPU,
            0,
            prompt_memory_gib=1.0,
        )
        for samples, seed in ((1, 1), (1, 2), (64, 3))
    ]
    assert len({run.prefix for run in runs}) == 1
    assert len(runs[0].prefix) > 5
    assert [run.memory.computed for run in runs] == [0, 0, 0], "nothing is computed before a batch is asked for"


def test_a_repeat_with_another_seed_may_keep_the_windows(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    first, second = (tiny_config(tiny, train_samples=32, val_samples=8, seed=seed) for seed in (1, 2))
    windows = prepare(first, CPU, 0).windows.passes[0]
    assert not torch.equal(prepare(second, CPU, 0).windows.passes[0], windows)
    assert torch.equal(prepare(second, CPU, 0, order_seed=1).windows.passes[0], windows)


def test_a_run_that_is_timed_never_uses_the_prompt_memory(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    config = tiny_config(tiny, train_samples=32, val_samples=8, prompt_prefix="store")
    timed = TrainingRun(config, options(tmp_path, clock="time", prompt_memory_gib=1.0, max_timing_seconds=0.0)).run()
    assert timed.prompt_memory is None
    assert not (tmp_path / "cache" / "prompt_memory").exists()
