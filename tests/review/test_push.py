"""A build goes to the hub whole, once, and in an order that never says more than is there."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.storage import landing, locate
from clearfuse.synth.review import push as pushing
from clearfuse.synth.review.push import push
from clearfuse.synth.review.verify import verify
from clearfuse.synth.types import UserError, WorkIncomplete
from conftest import Ran, folder_bytes, save, textured
from fakehub import TOKEN, FakeHub, Repository, fake_hub

# The hub's library uploads by a form of its transport that is going out of use.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")]

REPO = "me/pairs"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``one``, a build, ``more``, the same of two variants, and ``other``, of another seed."""
    root = tmp_path_factory.mktemp("push")
    for number in range(5):
        save(root / f"a/{number}.png", textured(number, 96, 80))
        save(root / f"b/{number}.png", textured(50 + number, 96, 80, channels=1))
    common: dict[str, Any] = {"data": f"folder={root / 'a'},{root / 'b'}", "executor": "serial", "n": "1"}
    common |= {"shard_size": 2, "codec": "png", "depth": "prior"}
    (root / "common.json").write_text(json.dumps(common))
    build("vif", out=root / "one", **common)
    build("vif", out=root / "more", variants=2, **common)
    build("vif", out=root / "other", seed=3, **common | {"shard_size": 1})
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub of our own, a token that it knows, and no transport but HTTP."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as hub:
        yield hub


def test_a_build_is_pushed_whole_and_private(hub: FakeHub, made: Path) -> None:
    told: list[tuple[int, int]] = []
    done = push(str(made / "one"), REPO, endpoint=hub.url, progress=lambda count, total: told.append((count, total)))
    files = folder_bytes(made / "one")
    assert hub.files(REPO) == files and hub.repositories[REPO].private
    assert (done.sent, done.held, done.removed, done.url) == (len(files), 0, 0, f"{hub.url}/datasets/{REPO}")
    assert told[-1] == (len(files), len(files))
    assert hub.repositories[REPO].commits[-1] == "Card and index"


def test_what_is_there_is_not_sent_again(hub: FakeHub, made: Path) -> None:
    push(str(made / "one"), REPO, endpoint=hub.url, private=False)
    assert not hub.repositories[REPO].private
    uploads, commits = len(hub.uploads), len(hub.repositories[REPO].commits)
    done = push(str(made / "one"), REPO, endpoint=hub.url)
    assert (done.sent, done.held) == (0, len(folder_bytes(made / "one")))
    assert (len(hub.uploads), len(hub.repositories[REPO].commits)) == (uploads, commits)
    push(str(made / "more"), REPO, endpoint=hub.url)  # more variants of the same build
    assert hub.files(REPO) == folder_bytes(made / "more")
    assert len(hub.uploads) == len(list((made / "more").glob("*.tar")))


def test_a_push_that_fails_goes_on(hub: FakeHub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "COMMIT_FILES", 1)
    hub.fail_commits = 1
    with pytest.raises(WorkIncomplete, match=r"me/pairs at http.*: .*Internal error.*; the same command goes on"):
        push(str(made / "one"), REPO, endpoint=hub.url)
    names = set(hub.files(REPO))
    assert len(names) == 2 and "dataset.json" not in names and "README.md" not in names
    hub.fail_commits = None
    done = push(str(made / "one"), REPO, endpoint=hub.url)
    assert done.held == 2 and hub.files(REPO) == folder_bytes(made / "one")
    assert len(hub.uploads) == 2


def test_another_build_is_replaced_by_overwrite_alone(hub: FakeHub, made: Path) -> None:
    push(str(made / "other"), REPO, endpoint=hub.url)
    hub.repositories[REPO].branches["main"]["notes.md"] = (b"mine", False)
    with pytest.raises(UserError, match=r"me/pairs holds another build: vif-train-000000\.tar is not of .*--overwrite"):
        push(str(made / "one"), REPO, endpoint=hub.url)
    done = push(str(made / "one"), REPO, endpoint=hub.url, overwrite=True)
    assert done.removed > 0
    assert hub.files(REPO) == folder_bytes(made / "one") | {"notes.md": b"mine"}


def test_the_command(hub: FakeHub, made: Path, synth: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    ran = synth("push", made / "one", REPO, "--public", "--json")
    files = len(folder_bytes(made / "one"))
    assert (ran.code, json.loads(ran.out)["sent"], hub.repositories[REPO].private) == (0, files, False)
    ran = synth("push", made / "one", REPO)
    assert ran.out == f"pushed 0 files ({files} were there) to {hub.url}/datasets/{REPO}\n"
    ran = synth("push", made / "other", REPO)
    assert ran.code == 2 and "add --overwrite to replace it" in ran.error


def test_a_build_in_a_store_is_pushed_from_there(hub: FakeHub, made: Path) -> None:
    folder = locate("memory://push/one")
    for name, data in folder_bytes(made / "one").items():
        with landing(folder / name) as file:
            file.write(data)
    push("memory://push/one", REPO, endpoint=hub.url)
    assert hub.files(REPO) == folder_bytes(made / "one")


def test_a_revision_is_a_branch(hub: FakeHub, made: Path) -> None:
    push(str(made / "one"), REPO, endpoint=hub.url, revision="v2")
    assert hub.files(REPO, "v2") == folder_bytes(made / "one") and hub.files(REPO) == {}


def remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def fill(name: str, size: int | None) -> Callable[[Path], None]:
    """Zeros in the place of a file, as many as it has, or ``size``."""

    def spoil(out: Path) -> None:
        (out / name).write_bytes(bytes((out / name).stat().st_size if size is None else size))

    return spoil


SPOILT = [
    (remove("dataset.json"), "no dataset.json: the build is not finished; run its command again"),
    (remove("README.md"), "no README.md: the build is not finished"),
    (remove("vif-train-000000.tar"), "missing, though dataset.json lists it"),
    (remove("vif-train-000000.json"), "not what its receipt says"),
    (fill("vif-train-000000.tar", 1), "not what its receipt says; see synth verify"),
    (fill("vif-train-000000.tar", None), "its bytes are not those of its receipt"),
    (fill("vif-train-000009.tar", 1), r"not in dataset\.json"),
    (shutil.rmtree, "no such folder, or nothing in it"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
def test_what_is_no_whole_build_is_refused(hub: FakeHub, made: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(made / "one", out)
    spoil(out)
    with pytest.raises(UserError, match=said):
        push(str(out), REPO, endpoint=hub.url)
    assert REPO not in hub.repositories or hub.files(REPO) == {}


def test_refusals_are_one_line(hub: FakeHub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = str(made / "one")
    for repo, said in (
        ("pairs", "repository 'pairs': must be NAME/BUILD"),
        ("me/a b", "repository 'me/a b': "),
        ("others/pairs", "others/pairs: refused (403): "),
    ):
        with pytest.raises(UserError) as error:
            push(one, repo, endpoint=hub.url)
        assert str(error.value).startswith(said) and "\n" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"refused the token: .*; run hf auth login"):
        push(one, REPO, endpoint=hub.url)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="the hub wants a token: run hf auth login, or set HF_TOKEN"):
        push(one, REPO, endpoint=hub.url)


def test_a_hub_that_is_down_is_one_line(hub: FakeHub, made: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WorkIncomplete, match=rf"me/pairs at http://127\.0\.0\.1:{port}: .*; the same command goes on"):
        push(str(made / "one"), REPO, endpoint=f"http://127.0.0.1:{port}")


def test_a_build_straight_to_the_hub(hub: FakeHub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``hf://``, through the hub's own library: a folder's bytes, found again when the same command comes again."""
    from huggingface_hub import HfFileSystem

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    HfFileSystem.clear_instance_cache()
    hub.repositories[REPO] = Repository(private=True)
    common, url = json.loads((made / "common.json").read_text()), f"hf://datasets/{REPO}/vif/one"
    there = [build("vif", out=url, **common).resumed for _ in range(2)]
    assert there == [0, len(list((made / "one").glob("*.tar")))]
    report = verify([url])
    assert report.ok and report.samples == verify([str(made / "one")]).samples > 2
    assert hub.files(REPO) == {f"vif/one/{name}": data for name, data in folder_bytes(made / "one").items()}
    HfFileSystem.clear_instance_cache()
