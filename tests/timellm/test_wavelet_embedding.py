"""The stationary wavelet transform and the patch embedding on its bands."""

import json
from typing import Any

import numpy as np
import pytest
import pywt
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.timellm.tiny_backbones import GOLDEN
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.model.layers import PatchEmbedding
from timellm.model.timellm import PromptBatch, TimeLLM
from timellm.model.wavelet_embedding import (
    StationaryWaveletTransform,
    WaveletPatchEmbedding,
    check_wavelet_embedding,
)

WAVELETS = ("haar", "db4", "db6", "sym4", "coif2")


def windows(count: int, seq_len: int, seed: int = 0) -> torch.Tensor:
    """Normalised windows [count, seq_len]."""
    return torch.randn(count, seq_len, generator=torch.Generator().manual_seed(seed))


def reference(x: torch.Tensor, wavelet: str, level: int) -> np.ndarray:
    """pywt's bands of windows whose last value is repeated up to a multiple of 2^level."""
    missing = -x.shape[1] % 2**level
    extended = np.pad(x.double().numpy(), ((0, 0), (0, missing)), mode="edge")
    bands = pywt.swt(extended, wavelet, level=level, axis=-1, trim_approx=True)
    return np.stack(bands, axis=1)[..., : x.shape[1]]


def embedding(**options: Any) -> WaveletPatchEmbedding:
    torch.manual_seed(0)
    return WaveletPatchEmbedding(
        16, 8, 16, 0.0, **{"wavelet": "db4", "level": 3, "use_all_coeffs": True, **options}
    ).eval()


@pytest.mark.parametrize("seq_len", [96, 100, 336])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_transform_equals_pywt(wavelet: str, seq_len: int) -> None:
    x = windows(7, seq_len)
    bands = StationaryWaveletTransform(wavelet, 3)(x)
    assert bands.dtype == torch.float32
    np.testing.assert_allclose(bands.numpy(), reference(x, wavelet, 3), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    wavelet=st.sampled_from(pywt.wavelist(kind="discrete")),
    seq_len=st.integers(16, 200),
    level=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
)
def test_transform_equals_pywt_for_any_wavelet_length_and_level(
    wavelet: str, seq_len: int, level: int, seed: int
) -> None:
    level = min(level, pywt.dwt_max_level(seq_len, wavelet))
    if level < 1:
        return
    x = windows(3, seq_len, seed)
    bands = StationaryWaveletTransform(wavelet, level)(x)
    np.testing.assert_allclose(bands.numpy(), reference(x, wavelet, level), rtol=1e-5, atol=1e-5)


def test_transform_stays_in_fp32_under_autocast() -> None:
    x, transform = windows(4, 96), StationaryWaveletTransform("db4", 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bands = transform(x)
    assert torch.equal(bands, transform(x))


@pytest.mark.parametrize("use_all_coeffs", [True, False])
@pytest.mark.parametrize("seq_len", [96, 100, 336])
def test_output_has_the_shape_of_the_plain_embedding(seq_len: int, use_all_coeffs: bool) -> None:
    x = windows(5, seq_len)
    plain = PatchEmbedding(16, 8, 16, 0.0)(x)
    assert embedding(use_all_coeffs=use_all_coeffs)(x).shape == plain.shape


def test_bands_start_with_equal_weights() -> None:
    assert embedding().band_weights.tolist() == pytest.approx([0.25] * 4)
    assert embedding(use_all_coeffs=False).band_weights.tolist() == pytest.approx([0.5] * 2)


def test_gradient_flows_to_the_band_weights_and_every_band() -> None:
    module = embedding()
    module(windows(5, 96)).square().sum().backward()
    assert (module.band_logits.grad != 0).all()
    assert all((band.tokenConv.weight.grad != 0).any() for band in module.band_embeddings)


def test_without_all_coefficients_only_the_coarsest_bands_are_read() -> None:
    module = embedding(use_all_coeffs=False)
    bands = module.transform(windows(2, 96))
    finer = bands.clone()
    finer[:, 2:] += 1
    outputs = []
    for given_bands in (bands, finer):
        module.transform.forward = lambda x, bands=given_bands: bands  # type: ignore[method-assign]
        outputs.append(module(windows(2, 96)))
    assert torch.equal(*outputs)


def test_patches_of_one_band_are_embedded_as_the_plain_path_does() -> None:
    module, x = embedding(), windows(3, 96)
    plain = PatchEmbedding(16, 8, 16, 0.0).eval()
    module.band_logits.data = torch.tensor([float("-inf"), float("-inf"), 0.0, float("-inf")])
    plain.value_embedding.load_state_dict(module.band_embeddings[2].state_dict())
    torch.testing.assert_close(module(x), plain(module.transform(x)[:, 2]))


@pytest.mark.parametrize("prompt_prefix", ["recompute", "reuse"])
def test_a_model_on_wavelet_bands_trains(prompt_prefix: Any) -> None:
    config = RunConfig(use_swt=True, use_all_coeffs=True, num_prototypes=20, prompt_prefix=prompt_prefix)
    torch.manual_seed(0)
    settings_of_gpt2 = json.loads((GOLDEN / "gpt2" / "config.json").read_text())
    backbone = transformers.GPT2Model(transformers.GPT2Config.from_dict(settings_of_gpt2)).eval().requires_grad_(False)
    model = TimeLLM(config, backbone)
    optimizer = torch.optim.Adam([parameter for _, parameter in model.trained_parameters()], lr=1e-3)
    prompt = PromptBatch(torch.randint(0, 512, (4, 9)), torch.tensor([9, 8, 9, 7]))
    losses = []
    for _ in range(2):
        model.eval()  # no dropout: the second loss is lower for the step's sake
        loss = (model(windows(4, 96), prompt) - windows(4, 96, seed=1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert (model.patch_embedding.band_logits != 0).all()


def test_unknown_wavelet_is_refused() -> None:
    with pytest.raises(InputError, match=r"swt_wavelet must be a discrete wavelet, got db99\. Use one like haar"):
        check_wavelet_embedding(RunConfig(use_swt=True, swt_wavelet="db99"))
    with pytest.raises(InputError, match="got morl"):
        check_wavelet_embedding(RunConfig(use_swt=True, swt_wavelet="morl"))


def test_level_that_the_window_does_not_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"swt_level must be at most 3 for seq_len 96 and db4, got 4\. Use a smaller"):
        check_wavelet_embedding(RunConfig(use_swt=True, swt_level=4))


def test_wavelet_settings_are_not_judged_without_use_swt() -> None:
    check_wavelet_embedding(RunConfig(swt_wavelet="db99"))
