"""Uploads to and downloads from the Hugging Face Hub, by its own client, which is an extra.

The client finds the user's token itself; it is neither read nor stored here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from research.errors import InputError, extra_remedy, optional_import
from research.interop.hub import FILES

SCHEME = "hf://"


def check_can_push(repository: str) -> None:
    """Raise `InputError` unless this can name a repository, and the client has a token.

    It is called before an export that may take long.
    """
    with _client_imported():
        from huggingface_hub import get_token
    check_name(repository, f"--push {repository}")
    if get_token() is None:
        raise InputError(
            "--push needs a token of the Hub, and none is configured; run `hf auth login`, or set "
            "HF_TOKEN, to a token that may write"
        )


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a folder to `OWNER/NAME`, which is made if it is not there; returns its address.

    `private` is for a new repository. `InputError` when the Hub refuses or cannot be reached.
    """
    with _client_imported():
        from huggingface_hub import HfApi
    with _hub_errors(f"--push {repository}"):
        api = HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        message = "Publish a run of Sixfold"
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(address)


@contextmanager
def local_folder(source: Path | str) -> Iterator[Path]:
    """The folder of a path; that of `hf://...` is downloaded, and removed afterwards."""
    if not str(source).startswith(SCHEME):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield pull(str(source), Path(scratch) / "hub")


def pull(reference: str, folder: Path) -> Path:
    """Download `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`, into `folder`, and return that.

    Only the files of our form are fetched. `InputError` when the Hub refuses or cannot be reached.
    """
    with _client_imported():
        from huggingface_hub import snapshot_download
    repository, _, revision = reference.removeprefix(SCHEME).partition("@")
    check_name(repository, reference)
    with _hub_errors(reference):
        snapshot_download(
            repository, revision=revision or None, local_dir=folder, allow_patterns=list(FILES)
        )
    return folder


def check_name(repository: str, what: str) -> None:
    """Raise `InputError`, whose message begins with `what`, for what is not OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined, unused-ignore]

    try:
        validate_repo_id(repository)
        reason = "" if repository.count("/") == 1 else "it names no owner"
    except HFValidationError as error:
        reason = str(error)
    if reason:
        raise InputError(f"{what}: {reason}; give OWNER/NAME")


@contextmanager
def _client_imported() -> Iterator[None]:
    with optional_import(("huggingface_hub",), "the Hugging Face Hub", extra_remedy("hub")):
        yield


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Errors of the Hub's client as `InputError`, whose message begins with `what`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"{what}: the Hub refused ({error!s:.300}); check the name and the token's rights"
        ) from error
    # Which package sends the client's requests, and so whose error this is, depends on its version.
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:  # type: ignore[attr-defined, unused-ignore]
        raise InputError(
            f"{what}: the Hub cannot be reached ({error!s:.200}); try again later"
        ) from error
