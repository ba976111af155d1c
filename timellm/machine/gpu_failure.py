"""What CUDA's error messages mean for a user: some mean that memory ran out, the others have a remedy of their own."""

from timellm.contract.columns import State
from timellm.contract.errors import first_line

_MEMORY_ENDED = ("cuda error: out of memory", "alloc_failed", "cuda_error_out_of_memory")

_REMEDIES = {
    "no kernel image is available": "This torch has no code for this GPU. Install a wheel that names its architecture.",
    "driver version is insufficient": "Update the NVIDIA driver, or install a torch wheel for an older CUDA.",
    "device-side assert": "An index was out of range on the GPU. Run with CUDA_LAUNCH_BLOCKING=1 --device cuda, or on "
    "--device cpu, which names the operation.",
    "illegal memory access": "Try --attention eager --compile_mode off; CUDA_LAUNCH_BLOCKING=1 names the operation.",
    "ecc error": "The GPU's memory is faulty. Use another GPU: CUDA_VISIBLE_DEVICES chooses it.",
    "device(s) is/are busy": "Another process holds the GPU for itself. End it, or choose another GPU with "
    "CUDA_VISIBLE_DEVICES.",
}
_OTHERWISE = "Try --attention eager --compile_mode off; CUDA_LAUNCH_BLOCKING=1 names the operation that failed."


def gpu_failure(error: BaseException) -> tuple[str, str] | None:
    """How a run ends that met an error of CUDA or of its libraries.

    Args:
        error: What was raised.

    Returns:
        The state of the run and the first line of the message with what to do, which for `out_of_memory` is left to
        the caller; None for any other error.
    """
    text = str(error)
    lowered = text.lower()
    if not any(word in lowered for word in ("cuda error", "cublas_status", "cudnn_status", "cuda driver")):
        return None
    first = first_line(text)
    if any(phrase in lowered for phrase in _MEMORY_ENDED):
        return State.OUT_OF_MEMORY, first
    remedy = next((remedy for phrase, remedy in _REMEDIES.items() if phrase in lowered), _OTHERWISE)
    return State.FAILED, f"{first}. {remedy}" if not first.endswith(".") else f"{first} {remedy}"
