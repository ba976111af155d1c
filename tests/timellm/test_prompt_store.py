"""What a prompt store takes, and where it does not fit; its numbers are in test_training_numbers."""

from types import SimpleNamespace

import pytest
import torch

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.machine.memory import is_out_of_memory
from timellm.run import prompt_store
from timellm.run.prompt_store import PromptStore

GIB = 2**30
ETTM1_SPANS = 34_369
"""Time spans of the training split."""


def store_of_ettm1(monkeypatch, limit_gib, free_gib, own_tokens=78):
    """The store of GPT-2 with six layers in bf16, one prompt per span, on a GPU of which so much is free."""
    gpt2 = SimpleNamespace(memory_shape=lambda tokens: (6, 12, tokens, 64), compute_dtype=torch.bfloat16)
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free_gib * GIB), 80 * GIB))
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype, device="meta"))
    used = torch.arange(ETTM1_SPANS)
    return PromptStore(gpt2, ETTM1_SPANS, used, own_tokens, limit_gib, torch.device("cuda"), ETTM1_SPANS)


@pytest.mark.parametrize(("own_tokens", "gib"), [(72, 42.5), (78, 46.0), (88, 51.9)])
def test_a_gpu_of_80_gb_holds_ettm1_with_one_prompt_per_span(monkeypatch, own_tokens, gib):
    store = store_of_ettm1(monkeypatch, limit_gib=56, free_gib=78, own_tokens=own_tokens)
    assert (store.kept, store.share) == (ETTM1_SPANS, 1.0)
    assert store.memory.nbytes / GIB == pytest.approx(gib, abs=0.1)


def test_the_limit_decides_how_many_prompts_are_kept(monkeypatch):
    store = store_of_ettm1(monkeypatch, limit_gib=4, free_gib=78)
    assert store.memory.nbytes / GIB == pytest.approx(4, rel=0.01)
    assert store.kept / ETTM1_SPANS == pytest.approx(4 / 46, rel=0.01)


def test_a_store_that_a_gpu_has_no_room_for_is_refused_before_the_first_step(monkeypatch):
    with pytest.raises(MemoryError, match=r"\(22.0 GiB\), but with --prompt_store_gib 48 it takes 46.0 GiB") as refused:
        store_of_ettm1(monkeypatch, limit_gib=48, free_gib=22)
    assert is_out_of_memory(refused.value)


def test_a_store_larger_than_main_memory_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_store, "usable_memory_gib", lambda: 1e-4)
    with pytest.raises(MemoryError, match=r"must fit in the device's memory.*Use a smaller one"):
        set_up(tiny_config(tmp_path, prompt_prefix="store"))
