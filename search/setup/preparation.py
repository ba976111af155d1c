"""From the command line to a search that is known to be possible: nothing is trained or written here."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.ledger import Ledger
from search.decide.propose.study import Proposal, Settings
from search.decide.spend.fidelity import parse_fidelity
from search.decide.spend.planning import choose_clocks
from search.setup.address import check_address
from search.setup.hardware import FactFinder, hardware_of, layer_variants, wavelet_variants, with_earlier_features
from search.setup.options import Options
from search.setup.resources import TrialResources, plan_resources
from spaces import Space, load_space, narrow, parse_settings, resolve
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder
from timellm.contract.words import shortened
from timellm.machine.launcher import unheeded

_LONGEST_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A search that can start.

    Attributes:
        options: The command line, completed with what the space changes the default of.
        folder: The run folder.
        space: The resolved space.
        config: Settings of every run; the space's knobs have their defaults in it.
        facts: What the machine, the data and the language model are.
        resources: What a trial may use.
        notes: The changes that the machine made necessary.
        warm_rows: Rows of an earlier run from which the sampler learns.
    """

    options: Options
    folder: RunFolder
    space: Space
    config: RunConfig
    facts: Mapping[str, Any]
    resources: TrialResources
    notes: tuple[str, ...]
    warm_rows: tuple[Mapping[str, Any], ...] = ()

    def run_config(self, proposal: Proposal) -> RunConfig:
        """The whole training run of a proposal."""
        seed = self.options.seed if proposal.seed is None else proposal.seed
        return self.config.replace(**proposal.settings, seed=seed)

    @property
    def baseline(self) -> RunConfig:
        """The whole training run of the baseline."""
        return self.config.replace(**self.space.settings(self.space.baseline))

    @property
    def plans(self) -> list[RunConfig]:
        """The whole training runs of the plans, without those that no run can have."""
        settings = [self.space.settings(plan) for plan in self.space.plans.values()]
        return [self.config.replace(**one) for one in settings if not self.refusal(one)]

    def choices(self, name: str) -> list[str]:
        """The values of a setting that the sampler chooses from."""
        knob = self.space.knob(name)
        return [str(value) for value in knob.values] if knob else [str(getattr(self.baseline, name))]

    def refusal(self, settings: Settings) -> str | None:
        """Why no run can have these settings; None if one can."""
        try:
            self.config.replace(**settings)
        except InputError as error:
            return str(error)
        return None


def run_folder(options: Options) -> RunFolder:
    """The folder of a new run, or of the one that is resumed.

    Raises:
        InputError: If the name is not valid, is taken without --resume, or does not exist with --resume.
    """
    if options.name is not None and options.resume is not None and options.name != options.resume:
        raise InputError(f"--name and --resume must agree, got {options.name} and {options.resume}. Drop --name.")
    given = next((name for name in (options.resume, options.name) if name is not None), None)
    name = datetime.now().strftime("%Y-%m-%d-%H%M%S") if given is None else given
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        flag = "--name" if options.resume is None else "--resume"
        raise InputError(
            f"{flag} must be letters, digits, dots, dashes and underscores, {_LONGEST_NAME} at most, "
            f"got {shortened(name)!r}."
        )
    if "://" in options.runs_dir:
        raise InputError(f"--runs_dir must be a folder of this machine, got the address {options.runs_dir}. Mount it.")
    folder = RunFolder(_expanded("--runs_dir", options.runs_dir) / name)
    if options.resume is not None:
        if not folder.manifest.is_file():
            raise InputError(
                f"--resume must name a run in {folder.path.parent}, "
                f"but {folder.path} holds no manifest.json. Check the name and --runs_dir."
            )
    elif folder.path.exists() and (not folder.path.is_dir() or set(folder.path.iterdir()) - {folder.lock, folder.data}):
        raise InputError(
            f"--name must be new, but {folder.path} exists. Continue it with --resume {name}, or use another name."
        )
    return folder


def prepare(options: Options, folder: RunFolder, meanwhile: Callable[[], object] = lambda: None) -> Preparation:
    """Check everything that can be checked before anything is started.

    Args:
        options: The command line.
        folder: From `run_folder`.
        meanwhile: Called while another process finds the facts of the machine, the data and the language model.

    Raises:
        InputError: With what is wrong.
    """
    if options.address is not None:
        check_address(options.address)
    space = narrow(load_space(options.space), parse_settings(options.set))
    options = _with_defaults_of(options, space)
    choose_clocks(options.clocks, parse_fidelity(options.fidelity or "auto"), options.time_budget)
    task = _task(options)
    first = RunConfig.from_dict({"llm_layers": 1, **task, **_checkable(space)})
    finder = FactFinder(first.to_dict(), [*layer_variants(space), *wavelet_variants(space)])
    meanwhile()
    facts = finder.facts()
    if options.resume is not None:
        facts = with_earlier_features(facts, folder.read_manifest())
    resolved, notes = resolve(space, hardware_of(facts))
    on_gpu, machine = "cuda" in facts["features"], facts["machine"]
    config = RunConfig.from_dict({**task, **resolved.fixed})
    if config.device == "auto":
        config = config.replace(device="cuda" if on_gpu else "cpu")
    resources = plan_resources(
        cores=machine["cores"],
        gpus=len(machine["gpus"]) if on_gpu else 0,
        device_memory_gib=facts["gpu_memory_gib"],
        max_concurrent=options.max_concurrent,
        gpus_per_trial=options.gpus_per_trial,
        max_memory_gib=options.max_memory_gib,
        devices=options.devices_per_trial,
        on_cluster=options.address is not None,
    )
    if resources.devices > 1 and options.address is None:
        notes = [*notes, str(resources)]
    prepared = Preparation(
        options=options,
        folder=folder,
        space=resolved,
        config=config,
        facts=facts,
        resources=resources,
        notes=(
            *filter(None, [facts.get("unusable_gpu")]),
            *unheeded(os.environ),
            *facts["data"].get("notes", ()),
            *facts.get("deepspeed", {}).get("notes", ()),
            *facts.get("prompts", {}).get("notes", ()),
            *notes,
        ),
        warm_rows=_warm_rows(options, facts),
    )
    if reason := resolved.exclusion(resolved.settings(resolved.baseline)):
        raise InputError(f"The baseline must be possible, but the space excludes it: {reason}")
    if reason := prepared.refusal(resolved.settings(resolved.baseline)):
        raise InputError(f"The baseline must be possible: {reason}")
    return prepared


def _warm_rows(options: Options, facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Rows of the run that --warm_start names.

    Raises:
        InputError: If there is no such run, or it had other data or another language model.
    """
    if options.warm_start is None:
        return ()
    folder = RunFolder(_expanded("--runs_dir", options.runs_dir) / options.warm_start)
    manifest = folder.read_manifest()
    for what, before in (("data", manifest.data), ("language model", manifest.backbone)):
        now = type(before).from_dict(facts["data" if before is manifest.data else "backbone"])
        if before.checksum != now.checksum:
            raise InputError(
                f"--warm_start needs a run with the same {what}, but {options.warm_start} had {before.name} "
                f"(checksum {before.checksum}) and this search has {now.name} (checksum {now.checksum})."
            )
    return tuple(Ledger.reopen(folder, options.time_weight).rows)


def _with_defaults_of(options: Options, space: Space) -> Options:
    """The options, with what the space says where the user said nothing.

    Raises:
        InputError: If the space names a scheduler that does not exist.
    """
    own = space.search
    fidelity = options.fidelity or (str(own["fidelity"]) if "fidelity" in own else None)
    scheduler = options.scheduler or (str(own["scheduler"]) if "scheduler" in own else None)
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise InputError(f"search.scheduler of {space.name} must be one of {', '.join(SCHEDULERS)}, got {scheduler!r}.")
    return dataclasses.replace(options, fidelity=fidelity, scheduler=scheduler)


def _task(options: Options) -> dict[str, Any]:
    """Data, language model and seed as settings of a run; paths are absolute, because workers run in another folder."""
    names = ("data", "root_path", "data_path", "features", "target", "llm_model", "llm_path", "seed")
    task = {name: getattr(options, name) for name in names}
    for name in ("root_path", "llm_path"):
        task[name] = _absolute(task[name])
    if task["root_path"] is None:
        task["data_path"] = _absolute(task["data_path"])
    if Path(options.llm_model).is_dir():
        task["llm_model"] = _absolute(options.llm_model)
    return task


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(_expanded("A path", path).absolute())


def _expanded(what: str, path: str) -> Path:
    """A path with its home folder in place of ~.

    Raises:
        InputError: If no user has that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{what} must have a user's name after ~, got {path}. Write the whole path.") from None


def _checkable(space: Space) -> dict[str, Any]:
    """The fixed settings that data and language model can be checked for before the machine is known."""
    return {name: value for name, value in space.fixed.items() if name not in ("precision", "offload_optimizer")}
