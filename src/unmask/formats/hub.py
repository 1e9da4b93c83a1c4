"""Upload weights to the Hugging Face Hub with the user's token."""

from pathlib import Path

from unmask.errors import ResourceError, SettingsError, first_line


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
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    except ImportError:
        raise ResourceError(
            '--push needs huggingface_hub; install it with `pip install "unmask[hub]"`'
        ) from None
    api = HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repo, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, commit_message="Weights written by unmask"
        )
    except HFValidationError as error:
        raise SettingsError(
            f"--push {repo} is not a valid name of a repository ({error}); use USER/NAME"
        ) from None
    except LocalTokenNotFoundError:
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


def _without_token(folder: Path, repo: str) -> str:
    return (
        f"{folder} is written, but not uploaded: the server needs a token with write access to {repo}. Create one in your "
        f"settings on the Hub, run `hf auth login`, then `hf upload {repo} {folder}`"
    )
