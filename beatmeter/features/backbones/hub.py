"""Checkpoints from the Hugging Face hub: the local cache first, then the internet, only the files that are
needed."""

from __future__ import annotations

import difflib
import fnmatch
from pathlib import Path

from beatmeter.errors import BackboneError
from beatmeter.features import activations
from beatmeter.features.backbones.checkpoint import WEIGHTS, weight_files
from beatmeter.settings import EMBEDDED, MERT_95M, MERT_330M

SETTINGS = ("config.json", "preprocessor_config.json", activations.FILE)
PATTERNS = (
    *SETTINGS,
    "model*.safetensors",
    "pytorch_model*.bin",
    "*.index.json",
)  # never *_fairseq.pt, never code


def download_command(repo: str, revision: str) -> str:
    """The shell command that fetches what `fetch` would."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {repo}{pinned} " + " ".join(f"--include '{p}'" for p in PATTERNS)


def fetch(repo: str, revision: str) -> tuple[Path, str]:
    """Folder and commit of `repo` at `revision` (a commit, a branch, or empty for `main`).

    A complete copy in the local cache is used without asking the network; HF_HUB_OFFLINE is honoured. Raises
    BackboneError with the command that fetches the files.
    """
    folder = cached(repo, revision)
    return (folder, folder.name) if folder is not None else _download(repo, revision)


def cached(repo: str, revision: str) -> Path | None:
    """The folder of a complete copy in the local cache, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(repo, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weight_files(folder)
    except BackboneError:
        return None
    return folder


def _download(repo: str, revision: str) -> tuple[Path, str]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    close = difflib.get_close_matches(repo, (MERT_330M, MERT_95M), n=1, cutoff=0.8)
    meant = f"Did you mean {close[0]!r}? " if close and close[0] != repo else ""
    otherwise = f"--set features.backbone={EMBEDDED} needs no download."
    at = f"{repo}{f' at {revision}' if revision else ''}"
    try:
        info = HfApi().model_info(repo, revision=revision or None)
        chosen = _choose([s.rfilename for s in info.siblings or []])
        folder = (
            Path(snapshot_download(repo, revision=revision or None, allow_patterns=chosen))
            if chosen
            else None
        )
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise BackboneError(
            f"there is no folder {repo!r} here, and the hub has no public model {at}", meant + otherwise
        ) from None
    # the hub client raises the errors of several HTTP libraries; whatever it was, the weights are not here
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise BackboneError(
            f"the weights of {at} are not on this machine and could not be fetched ({first})",
            f"{meant}With a network, run `{download_command(repo, revision)}`. {otherwise}",
        ) from None
    if folder is None:
        raise BackboneError(
            f"{at} on the hub has no weights that can be read",
            f"It needs config.json and one of {', '.join(WEIGHTS)}.",
        )
    return folder, folder.name


def _choose(present: list[str]) -> list[str]:
    """The settings and the first kind of weights that is complete in the listing; shards belong to their
    index."""
    for name in WEIGHTS:
        if name not in present or "config.json" not in present:
            continue
        shards = fnmatch.filter(
            present,
            name.replace(".safetensors.index.json", "-*.safetensors").replace(".bin.index.json", "-*.bin"),
        )
        return (
            [f for f in SETTINGS if f in present] + [name] + (shards if name.endswith(".index.json") else [])
        )
    return []
