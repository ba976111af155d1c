"""Optimizer steps by one process, or by several that train together.

As a program it is one of them: `python -m tests.timellm.two_processes CONFIG.json RESULT.json WINDOWS...`; with
`TOKENISE_AS_NEEDED` in its environment it tokenises prompts as a run on very wide data does.
"""

import faulthandler
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.timellm.tiny_runs import CPU, set_up
from timellm.contract.config import RunConfig
from timellm.machine.process import leave_process_group, worker_environment
from timellm.prompts import as_needed
from timellm.run.evaluate import evaluate

ROOT = Path(__file__).parents[2]

_MOST_SECONDS = 400
"""After so long a process says where each of its threads stands, and ends with status 1."""


def train(config: RunConfig, windows: list[int]) -> dict[str, Any]:
    """Train without dropout on parts of the first pass, of so many windows each, then validate."""
    prepared, stepper, losses = set_up(config)
    for module in prepared.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for part in prepared.windows.passes[0][: sum(windows)].split(windows):
        stepper.train(part)
    seen: list[int] = []
    cut = prepared.validation

    def recorded(groups: list[torch.Tensor], *clocks: Any) -> Any:
        for batch in cut(groups, *clocks):
            seen.extend(batch.indices[: len(batch.y)].tolist())
            yield batch

    scores = evaluate(
        prepared.model, recorded, prepared.windows.validation, 8, CPU,  # type: ignore[arg-type]
        shares_prototypes=False, engine=stepper.engine,
    )  # fmt: skip
    return {"losses": losses, "mse": scores.mse, "mae": scores.mae, "seen": seen, "windows": scores.windows}


def start(command: list[str], rank: int, world: int, port: int, **more: Any) -> subprocess.Popen:
    """One process of several, as torchrun would start it beside its own store of what they tell each other."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    environment = {**os.environ, **worker_environment(1), **{name: str(value) for name, value in place.items()}}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, text=True, **more)


def train_together(config: RunConfig, windows: list[int], folder: Path, world: int = 2) -> list[dict[str, Any]]:
    """What each of several processes found; the first that fails ends the others, which may wait for it in vain."""
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port
    results = [folder / f"result{rank}.json" for rank in range(world)]
    program = ["-m", "tests.timellm.two_processes", str(folder / "config.json")]
    processes, errors = [], [path.with_suffix(".err") for path in results]
    for rank, (path, error) in enumerate(zip(results, errors, strict=True)):
        with error.open("w") as stream:
            processes.append(start([*program, str(path), *map(str, windows)], rank, world, store.port, stderr=stream))
    try:
        while not any(process.poll() for process in processes) and None in [one.returncode for one in processes]:
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
    ends = [process.wait() for process in processes]
    assert ends == [0] * world, [ends, *(path.read_text()[-4000:] for path in errors)]
    return [json.loads(path.read_text()) for path in results]


if __name__ == "__main__":
    faulthandler.dump_traceback_later(_MOST_SECONDS, exit=True)
    torch.set_num_threads(1)
    if "TOKENISE_AS_NEEDED" in os.environ:
        as_needed.MOST_TOKENISED_FIRST = 0
    found = train(RunConfig.from_json(Path(sys.argv[1])), [int(count) for count in sys.argv[3:]])
    Path(sys.argv[2]).write_text(json.dumps(found))
    leave_process_group()
