"""Push a finished build to the Hugging Face hub: a data-set repository with the build's files at its root.

Shards go first, each with its receipt, the card and the index last, so that a repository which says it is whole is. A
push that was cut short goes on: what the repository has, by its hash, is not sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.files import storage
from clearfuse.synth.files.storage import Location
from clearfuse.synth.review.verify import check_folder
from clearfuse.synth.shards.receipts import listed_shards
from clearfuse.synth.shards.records import ListedShard
from clearfuse.synth.shards.tar import SHARD, receipt_path
from clearfuse.synth.types import UserError, WorkIncomplete, reason_of

Progress = Callable[[int, int], None]

COMMIT_FILES, COMMIT_BYTES = 64, 8 << 30
"""Most shards and bytes of one commit: fewer commits are easier to read, and a kill loses the one it was in."""
LAST = ("index.json", "index-train.json", "index-val.json", "index-test.json", "croissant.json")
"""Of the files of the last commit, those that a build may have; it always has ``dataset.json`` and ``README.md``."""


@dataclass(frozen=True)
class Pushed:
    """What a push did: files sent, files that were there, files of an earlier build that it removed, and where."""

    sent: int
    held: int
    removed: int
    url: str


@dataclass(frozen=True)
class _Held:
    """A file of the repository: git's hash of what is committed, and the sha256 of a large file that it points to."""

    blob: str
    sha256: str | None

    def is_of(self, data: bytes) -> bool:
        """Whether it holds these bytes; a blob's name is the sha1 of its length and content."""
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return blob == self.blob or hashlib.sha256(data).hexdigest() == self.sha256


def push(
    out: str,
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    overwrite: bool = False,
    endpoint: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Pushed:
    """Push the build in ``out``, a folder or a URL, to the data-set repository ``repo``, ``NAME/BUILD``.

    private: of a repository that is made here; one that is there keeps what it is. revision: a branch, made where it is
    missing. overwrite: replace another build that is there. endpoint: another hub than ``HF_ENDPOINT`` says.
    Raises UserError before anything is sent (no whole build, no token, refused, another build there), WorkIncomplete
    where the hub fails later; the same call goes on.
    """
    folder = storage.locate(out)
    shards, last = _contents(folder)
    hub = _Hub(repo, private, revision, endpoint)
    held = hub.files()
    strangers = [name for name in held if SHARD.match(name) and name.endswith(".tar") and name not in shards]
    strangers += [name for name, shard in shards.items() if name in held and held[name].sha256 != shard.sha256]
    if strangers and not overwrite:
        raise UserError(
            f"{repo} holds another build: {sorted(strangers)[0]} is not of {out}; push to another repository or "
            "--revision, or add --overwrite to replace it"
        )
    total = 2 * len(shards) + len(last)
    sent = done = 0
    for names in _portions(shards):
        wanted = [path for name in names for path in (folder / name, receipt_path(folder / name))]
        sent += hub.commit(wanted, held, shards, f"{len(names)} shards")
        done += len(wanted)
        progress(done, total)
    stale = sorted(name for name in held if name not in last and _of_a_build(name, shards))
    sent += hub.commit([folder / name for name in last], held, shards, "Card and index", stale)
    progress(total, total)
    return Pushed(sent, total - sent, len(stale), hub.url)


def _contents(folder: Location) -> tuple[dict[str, ListedShard], list[str]]:
    """The shards of a build as its index lists them, and its other files. Raises UserError where it is not whole."""
    held = storage.listing(folder)
    if not held:
        raise UserError(f"{folder}: no such folder, or nothing in it")
    problems = check_folder(folder)
    if problems:
        raise UserError(f"{problems[0]}; a whole build is pushed alone")
    listed = {shard.shard: shard for shard in listed_shards(folder / "dataset.json")}
    for name, shard in listed.items():
        if receipt_path(folder / name).name not in held or held[name] != shard.bytes:
            raise UserError(f"{folder / name}: not what its receipt says; see synth verify {folder}")
    last = [name for name in LAST if name in held] + ["dataset.json", "README.md"]
    if "README.md" not in held:
        raise UserError(f"{folder}: no README.md: the build is not finished; run its command again")
    return listed, last


def _of_a_build(name: str, shards: Mapping[str, Any]) -> bool:
    """Whether a file of the repository is one that builds write, and not of these shards."""
    return name in LAST or (bool(SHARD.match(name)) and f"{name.rpartition('.')[0]}.tar" not in shards)


def _portions(shards: Mapping[str, ListedShard]) -> Iterator[list[str]]:
    portion: list[str] = []
    size = 0
    for name, shard in shards.items():
        if portion and (len(portion) == COMMIT_FILES or size + shard.bytes > COMMIT_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += shard.bytes
    if portion:
        yield portion


class _Hub:
    """A data-set repository, made where it is missing."""

    def __init__(self, repo: str, private: bool, revision: str | None, endpoint: str | None) -> None:
        import huggingface_hub
        from huggingface_hub.utils import HFValidationError, disable_progress_bars, validate_repo_id

        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise UserError(f"repository '{repo}': {reason_of(error)}") from None
        if repo.count("/") != 1:
            raise UserError(f"repository '{repo}': must be NAME/BUILD, with the name of a user or an organisation")
        if huggingface_hub.get_token() is None:
            raise UserError("the hub wants a token: run hf auth login, or set HF_TOKEN")
        disable_progress_bars()
        self._api = huggingface_hub.HfApi(endpoint=endpoint, library_name="clearfuse")
        self.repo, self.revision = repo, revision
        with self._asking(began=False):
            made = self._api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            if revision is not None:
                self._api.create_branch(repo, repo_type="dataset", branch=revision, exist_ok=True)
        self.url = str(made)

    def files(self) -> dict[str, _Held]:
        """What the repository has, by path."""
        from huggingface_hub.hf_api import RepoFile

        with self._asking(began=False):
            tree = self._api.list_repo_tree(self.repo, repo_type="dataset", revision=self.revision, recursive=True)
            return {
                entry.path: _Held(entry.blob_id, None if entry.lfs is None else entry.lfs.sha256)
                for entry in tree
                if isinstance(entry, RepoFile)
            }

    def commit(
        self,
        paths: Sequence[Location],
        held: Mapping[str, _Held],
        shards: Mapping[str, ListedShard],
        message: str,
        stale: Sequence[str] = (),
    ) -> int:
        """Send in one commit what the repository does not have, and remove what is stale; how many were sent."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with ExitStack() as stack:
            operations: list[Any] = [CommitOperationDelete(name) for name in stale]
            for path in paths:
                there = held.get(path.name)
                if path.name in shards:
                    if there is not None and there.sha256 == shards[path.name].sha256:
                        continue
                    local = stack.enter_context(storage.fetched(path))
                    operations.append(CommitOperationAdd(path.name, str(local)))
                    if operations[-1].upload_info.sha256.hex() != shards[path.name].sha256:
                        raise UserError(f"{path}: its bytes are not those of its receipt; see synth verify")
                    continue
                data = path.read_bytes()
                if there is None or not there.is_of(data):
                    operations.append(CommitOperationAdd(path.name, data))
            if operations:
                with self._asking(began=True):
                    self._api.create_commit(
                        *(self.repo, operations),
                        commit_message=message,
                        repo_type="dataset",
                        revision=self.revision,
                    )
            return len(operations) - len(stale)

    @contextmanager
    def _asking(self, *, began: bool) -> Iterator[None]:
        """Whatever the hub's library raises becomes one line; ``began``: something may have been sent."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except (UserError, WorkIncomplete):
            raise
        except Exception as error:  # the library, its transport and xet have errors of their own
            said: BaseException = error
            if not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
                said = error.__cause__  # "error while uploading" alone says nothing
            reason, code = str(said) or type(said).__name__, None
            if isinstance(said, HfHubHTTPError):
                code = said.response.status_code
                reason = said.server_message or reason
            reason = " ".join(reason.split())[:300]
            if code == 401:
                raise UserError(f"{self._api.endpoint} refused the token: {reason}; run hf auth login") from None
            if code in (403, 404) and not began:
                raise UserError(f"{self.repo}: refused ({code}): {reason}") from None
            where = f"{self.repo} at {self._api.endpoint}"
            raise WorkIncomplete(f"{where}: {reason}; the same command goes on") from None
