"""Weights from and to the Hugging Face Hub; the user's token is the one that `hf auth login` stored."""

from pathlib import Path
from typing import Any

from unmask.errors import DataError, ResourceError, SettingsError, first_line, with_extra

# what to fetch, in the order of preference: a repository may hold several formats of the same weights
_WANTED = (
    *(("model.safetensors",), ("encoder.safetensors",)),
    ("model.safetensors.index.json", "*-of-*.safetensors"),
    ("*.safetensors", "*.safetensors.index.json"),
    *(("pytorch_model.bin",), ("pytorch_model.bin.index.json", "*-of-*.bin")),
    ("*.bin", "*.bin.index.json", "*.pth", "*.pt"),
)
# folders, which hold checkpoints of a training, and what transformers' Trainer saves beside the weights
_LEFT = ("*/*", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "training_args.*")
_BESIDE = ("config.json", "preprocessor_config.json")


def pull(repo: str, endpoint: str | None = None) -> Path:
    """A folder with the weights of a repository, in the cache of huggingface_hub, which is used again without a network.

    Args:
        repo: OWNER/NAME.
        endpoint: a server other than the public one, or that in HF_ENDPOINT.

    Raises:
        SettingsError: if the name is not valid.
        DataError: if there is no such repository, or it holds no weights.
        ResourceError: if the package is missing, or the server cannot be reached.
    """
    hub, errors = _package(f"hf:{repo}")
    try:
        for patterns in _WANTED:
            wanted = [*_BESIDE, *patterns]
            fetched = hub.snapshot_download(
                repo, allow_patterns=wanted, ignore_patterns=list(_LEFT), endpoint=endpoint
            )
            folder = Path(fetched)
            if any(any(folder.glob(pattern)) for pattern in patterns):
                return folder
    except errors.HFValidationError:
        raise SettingsError(
            f"hf:{repo} is not a valid name of a repository; use hf:OWNER/NAME"
        ) from None
    except errors.GatedRepoError:  # which is a kind of the next
        raise DataError(
            f"hf:{repo} is gated; accept its conditions on its page on the Hub, then run `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"hf:{repo} does not exist on the Hub, or is private; check the name, or run `hf auth login`"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise _unreachable(repo, "no connection, and no copy in the cache") from None
    except Exception as error:  # the library raises many kinds for network and server problems
        raise _unreachable(repo, first_line(error)) from None
    raise DataError(
        f"hf:{repo} holds no weights (no .safetensors, .bin, .pth or .pt file outside of its folders); give another repository"
    )


def push(folder: Path, repo: str, endpoint: str | None = None, token: str | None = None) -> str:
    """Upload a folder to a repository, which is created if needed; returns its address.

    Args:
        folder: the folder to upload.
        repo: USER/NAME.
        endpoint: a server other than the public one.
        token: the user's; by default the one that `hf auth login` stored.

    Raises:
        SettingsError: if the name of the repository is not valid.
        ResourceError: if the package is missing, or the server refuses or cannot be reached.
    """
    hub, errors = _package("--push")
    api = hub.HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repo, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, commit_message="Weights written by unmask"
        )
    except errors.HFValidationError as error:
        raise SettingsError(
            f"--push {repo} is not a valid name of a repository ({error}); use USER/NAME"
        ) from None
    except errors.LocalTokenNotFoundError:
        raise ResourceError(_without_token(folder, repo)) from None
    except Exception as error:  # the library raises many kinds for network and server problems
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        if refused:
            raise ResourceError(_without_token(folder, repo)) from None
        reason = first_line(error)
        raise ResourceError(
            f"{folder} is written, but could not be uploaded to {repo} ({reason}); try again with "
            f"`hf upload {repo} {folder}`"
        ) from None
    return str(address)


def _package(what: str) -> tuple[Any, Any]:
    """huggingface_hub and its errors."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ResourceError(
            f"{what} needs huggingface_hub; install it with {with_extra('hub')}"
        ) from None
    return huggingface_hub, errors


def _unreachable(repo: str, reason: str) -> ResourceError:
    return ResourceError(
        f"hf:{repo} could not be downloaded ({reason}); try again with a connection, or give a folder"
    )


def _without_token(folder: Path, repo: str) -> str:
    return (
        f"{folder} is written, but not uploaded: the server needs a token with write access to {repo}. Create one in your "
        f"settings on the Hub, run `hf auth login`, then `hf upload {repo} {folder}`"
    )
