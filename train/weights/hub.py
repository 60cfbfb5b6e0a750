"""Pipelines on the Hugging Face hub: safetensors and JSON, no code and no pickle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from clearfuse.synth.types import UserError, reason_of


def pull(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The local copy of a repository's files. Raises UserError where there is no way to it."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the library, its transport and xet have errors of their own
        raise UserError(
            f"{name}: no such folder, and the Hugging Face hub has none either: {reason_of(error)}"
        ) from None


def push(repo: str, write: Callable[[Path], None], *, private: bool, revision: str | None, endpoint: str | None) -> str:
    """Send what ``write`` writes to a model repository in one commit, made where it is missing; its address.

    Raises UserError where the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi(endpoint=endpoint)
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch))
        try:
            url = api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=scratch, revision=revision, commit_message="Fusion pipeline")
        except LocalTokenNotFoundError:
            raise UserError(f"{repo}: the hub wants a token: run hf auth login, or set HF_TOKEN") from None
        except Exception as error:  # the library, its transport and xet have errors of their own
            raise UserError(f"{repo}: can't be pushed: {reason_of(error)}") from None
    return str(url)
