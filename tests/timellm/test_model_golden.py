import numpy as np
import pytest
import torch

from tests.timellm.golden_cases import GoldenCase, golden_cases
from timellm.contract.config import RunConfig
from timellm.model.timellm import CAUSAL, PromptBatch, TimeLLM

KINDS = {"gpt2": "GPT2", "llama": "Llama", "bert": "Bert"}
ZERO_IN_THEORY = "reprogramming_layer.key_projection.bias"
N_HEADS = 8


def published_config(case: GoldenCase, **changes: object) -> RunConfig:
    weights = case.weights()
    d_model, patch_len, _ = weights["patch_embedding.value_embedding.tokenConv.weight"].shape
    d_ff = weights["reprogramming_layer.query_projection.weight"].shape[0] // N_HEADS
    patches = weights["output_projection.linear.weight"].shape[1] // d_ff
    strides = [n for n in (8, *range(1, case.seq_len)) if (case.seq_len - patch_len) // n + 2 == patches]
    settings = {
        "seq_len": case.seq_len, "pred_len": case.pred_len, "d_model": d_model, "d_ff": d_ff, "n_heads": N_HEADS,
        "patch_len": patch_len, "stride": strides[0], "num_prototypes": weights["mapping_layer.weight"].shape[0],
        "prompt_padding": "published",
    }  # fmt: skip
    return RunConfig.from_dict({**settings, **changes})


def build_model(case: GoldenCase, config: RunConfig) -> TimeLLM:
    import transformers

    settings = transformers.AutoConfig.from_pretrained(case.config_path)
    settings._attn_implementation = config.attention
    backbone = getattr(transformers, KINDS[settings.model_type] + "Model")(settings)
    backbone.eval().requires_grad_(False)
    model = TimeLLM(config.replace(llm_layers=settings.num_hidden_layers), backbone)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in case.weights().items()}, strict=True)
    return model.eval()


def rows(values: np.ndarray) -> torch.Tensor:
    """[B, T, N] as rows [B * N, T], channel fastest."""
    tensor = torch.from_numpy(values).transpose(1, 2)
    return tensor.reshape(-1, tensor.shape[2])


def shared_tokens(ids: torch.Tensor) -> int:
    differing = (ids != ids[0]).any(dim=0).nonzero()
    return int(differing[0]) if len(differing) else ids.shape[1] - 1


def forward_and_backward(case: GoldenCase, config: RunConfig) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    arrays, model = case.arrays(), build_model(case, config)
    x, y, ids = rows(arrays["x"]), rows(arrays["y"]), torch.from_numpy(arrays["prompt_ids"])
    if config.prompt_prefix == "reuse":
        kept = shared_tokens(ids)
        model.keep_prefix(ids[0, :kept])
        ids = ids[:, kept:]
    forecast = model(x, PromptBatch(ids))
    loss = (forecast - y).square().mean()
    loss.backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in model.named_parameters() if tensor.grad is not None}
    output = forecast.detach().view(case.batch, case.channels, -1).transpose(1, 2).numpy()
    return output, loss.item(), gradients


def relative_error(ours: np.ndarray | float, theirs: np.ndarray | float) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def paths() -> list[tuple[GoldenCase, str]]:
    both = ("recompute", "reuse")
    return [(case, path) for case in golden_cases() for path in (both if kind_of(case) in CAUSAL else both[:1])]


def kind_of(case: GoldenCase) -> str:
    import json

    return json.loads(case.config_path.read_text())["model_type"]


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("case", "path"), paths(), ids=lambda value: value if isinstance(value, str) else value.id)
def test_golden_outputs_loss_and_gradients_equal_the_published_ones(case, path, attention, checkpointed):
    config = published_config(case, prompt_prefix=path, attention=attention, gradient_checkpointing=checkpointed)
    output, loss, gradients = forward_and_backward(case, config)
    arrays = case.arrays()
    assert relative_error(output, arrays["output"]) < 1e-5
    assert relative_error(loss, arrays["loss"]) < 1e-5
    compared = 0
    for name, expected in arrays.items():
        kind, _, parameter = name.partition(".")
        if kind not in ("grad", "gradnorm") or parameter == ZERO_IN_THEORY:
            continue
        ours = gradients[parameter] if kind == "grad" else np.linalg.norm(gradients[parameter])
        assert relative_error(ours, expected) < 1e-4, name
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.id)
def test_golden_gradients_reach_no_frozen_parameter(case):
    _, _, gradients = forward_and_backward(case, published_config(case))
    assert not [name for name in gradients if name.startswith(("llm_model", "word_embeddings"))]
