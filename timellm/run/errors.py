"""Ways in which a run ends early."""


class Interrupted(Exception):  # noqa: N818 - an order, not an error
    """The run was told to stop; what it has measured so far still counts."""


_WIDER_RANGE = {"fp16": "--precision bf16, ", "bf16": "--precision fp32, ", "tf32": "--precision fp32, ", "fp32": ""}
"""Number format that may help, by the one it happened in: bf16 has the range of fp32, fp32 more digits."""


class Diverged(Exception):  # noqa: N818 - the field's word
    """The loss is no longer finite, or no update was made any more.

    Args:
        step: Optimizer step, from 1.
        precision: Compute type it happened in.
        skipped: Updates skipped in a row, because scaled gradients overflowed; 0 where the loss itself is not finite.
    """

    def __init__(self, step: int, precision: str, skipped: int = 0) -> None:
        happened = (
            f"An update must be made at least every {skipped} steps, but the last {skipped} up to step {step} were "
            f"skipped, because gradients overflowed in {precision}."
            if skipped
            else f"The loss must stay finite, got a non-finite one at step {step} in {precision}."
        )
        super().__init__(f"{happened} Try {_WIDER_RANGE[precision]}a lower --learning_rate, or --max_grad_norm 1.")


OUT_OF_MEMORY_REMEDIES = (
    "Try --precision bf16, a smaller --batch_size with --accumulation_steps, fewer --llm_layers, "
    "--prompt_prefix reuse, --gradient_checkpointing, or --offload_optimizer cpu."
)
"""What to do when memory runs out."""
