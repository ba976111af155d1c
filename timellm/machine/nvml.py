"""The start of NVML, the library through which NVIDIA's driver answers."""

from types import ModuleType


class NvmlMissingError(Exception):
    """NVML is not available; the message says why, without a full stop."""


def start_nvml() -> ModuleType:
    """NVML, ready for questions. Each start needs one `nvmlShutdown`, or the end of the process.

    Raises:
        NvmlMissingError: If its package, its library or an NVIDIA driver is missing.
    """
    try:
        import pynvml
    except ImportError:
        raise NvmlMissingError("nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlMissingError(str(error)) from error
    return pynvml
