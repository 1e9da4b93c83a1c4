"""Weights to the Hugging Face Hub, with the token that the user has there."""

from pathlib import Path

from unmask.errors import ResourceError, SettingsError


def push(folder: Path, repo: str, endpoint: str | None = None, token: str | None = None) -> str:
    """Upload a folder to a repository, which is made if there is none; its address.

    Args:
        folder: what to upload, whole.
        repo: USER/NAME.
        endpoint: another server than the public one.
        token: of the user; the one that `hf auth login` stored if not given.

    Raises:
        SettingsError: if the repository's name cannot be one.
        ResourceError: if the package is missing, the server refuses or cannot be reached.
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
            f"--push {repo}: no name of a repository, USER/NAME ({error})"
        ) from None
    except LocalTokenNotFoundError:
        raise ResourceError(_without_token(folder, repo)) from None
    except Exception as error:  # whatever the network or the server does
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        if refused:
            raise ResourceError(_without_token(folder, repo)) from None
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ResourceError(
            f"{folder} is written, but could not be pushed to {repo} ({reason}); try again with "
            f"`hf upload {repo} {folder}`"
        ) from None
    return str(address)


def _without_token(folder: Path, repo: str) -> str:
    return (
        f"{folder} is written, but not pushed: the server wants a token that may write to {repo}; make one "
        f"in your settings there, `hf auth login`, then `hf upload {repo} {folder}`"
    )
