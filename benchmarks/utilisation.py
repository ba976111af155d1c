"""How busy a GPU is, as its driver says."""

import shutil
import subprocess
import threading

import torch


class UtilisationWatch:
    """Samples the share of time in which a kernel ran, while it is entered.

    Args:
        device: On a CPU nothing is sampled.
    """

    def __init__(self, device: torch.device) -> None:
        self._command = _command(device)
        self._samples: list[float] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> "UtilisationWatch":
        """Start sampling."""
        if self._command:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop sampling."""
        if self._process and self._reader:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    @property
    def mean_percent(self) -> float | None:
        """Mean of the samples; None without a GPU or its driver's tool."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                self._samples.append(float(line))


def _command(device: torch.device) -> list[str] | None:
    tool = shutil.which("nvidia-smi")
    if device.type != "cuda" or tool is None:
        return None
    card = torch.cuda.get_device_properties(device).uuid
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=500"]
    return [tool, f"--id=GPU-{card}", *query]
