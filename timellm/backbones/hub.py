"""Model files from the hub: from its local cache first, from the network when they are not there."""

from pathlib import Path

_SMALL_FILES = [
    "config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
]
_SAFETENSORS_FILES = ["model*.safetensors", "model.safetensors.index.json"]
_BIN_FILES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
_PROBE_SECONDS = 5.0


def cached_snapshot(hub_names: tuple[str, ...]) -> Path | None:
    """Folder of the first repository whose config.json is in the local hub cache; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache

    for hub_name in hub_names:
        path = try_to_load_from_cache(hub_name, "config.json")
        if isinstance(path, str):
            return Path(path).parent
    return None


def hub_cache() -> Path:
    """The local hub cache, which `HF_HOME` and `HF_HUB_CACHE` move."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def downloaded_snapshot(hub_name: str, *, with_weights: bool = True) -> Path:
    """Folder of a repository, its files downloaded where they are missing.

    One quick question comes first, so that a machine without a network learns it within seconds.

    Args:
        hub_name: Repository, `owner/name`.
        with_weights: Whether the weights are wanted, or config and tokenizer alone.

    Returns:
        The folder, in the local hub cache.

    Raises:
        OSError: If the hub cannot be reached or refuses, or `HF_HUB_OFFLINE` is set.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        siblings = HfApi().model_info(hub_name, timeout=_PROBE_SECONDS).siblings or ()
        patterns = list(_SMALL_FILES)
        if with_weights:
            is_safetensors = any(
                file.rfilename.endswith(".safetensors") and "/" not in file.rfilename for file in siblings
            )
            patterns += _SAFETENSORS_FILES if is_safetensors else _BIN_FILES
        return Path(snapshot_download(hub_name, allow_patterns=patterns, etag_timeout=_PROBE_SECONDS))
    except HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
