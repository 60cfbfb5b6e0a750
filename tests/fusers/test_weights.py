"""``synth weights``: downloads are verified, files that fit no network refused, and no partial files remain."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clearfuse.synth.files import checkpoints
from clearfuse.synth.fusers import choice, weights
from clearfuse.synth.fusers.swinfusion import SwinFusion
from clearfuse.synth.types import UserError
from conftest import Ran
from fusers.official import ruled

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return ruled(SwinFusion().state_dict())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, the address of a local server for it, and ``swinfusion-vif`` as one of its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/10000_E.pth"
    (folder / "10000_E.pth").write_bytes(b"weights" * 300_000)
    one = replace(weights.WEIGHTS["swinfusion-vif"], url=url, blob=checkpoints.blob_id(folder / "10000_E.pth"))
    monkeypatch.setitem(weights.WEIGHTS, "swinfusion-vif", one)
    yield folder, url
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_blob_id_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello world\n")
    assert checkpoints.blob_id(path) == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"  # git hash-object


def test_pinned_addresses_name_a_commit_and_a_hash() -> None:
    for one in weights.WEIGHTS.values():
        assert (one.url is None) == (one.blob is None)
        assert one.url is None or ("ceeec3fe935630b4d1f2f545984a7a6cb5133f62" in one.url and len(one.blob or "") == 40)


def test_get_fetches_checks_and_keeps(synth: Synth, served: tuple[Path, str], cache: Path) -> None:
    ran = synth("weights", "get", "swinfusion-vif")
    path = cache / "swinfusion-vif.pth"
    assert (ran.code, ran.out.strip()) == (0, f"swinfusion-vif: {path}")
    assert path.read_bytes() == (served[0] / "10000_E.pth").read_bytes()
    (served[0] / "10000_E.pth").unlink()
    assert synth("weights", "get", "swinfusion-vif", "--json").code == 0, "it is there: nothing is fetched"
    assert [p.name for p in cache.iterdir()] == ["swinfusion-vif.pth"]


def test_another_file_than_the_pinned_one_is_refused(synth: Synth, served: tuple[Path, str], cache: Path) -> None:
    folder, url = served
    (folder / "10000_E.pth").write_bytes(b"other")
    ran = synth("weights", "get", "swinfusion-vif")
    assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1
    assert ran.error.startswith(f"synth: error: {url}: not the pinned file (git blob ")
    assert ran.error.endswith(f"put it at {cache / 'swinfusion-vif.pth'}")
    assert list(cache.iterdir()) == []


def test_without_network_the_file_and_its_place_are_named(
    synth: Synth, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:9/10000_E.pth"
    monkeypatch.setitem(weights.WEIGHTS, "swinfusion-mef", replace(weights.WEIGHTS["swinfusion-mef"], url=url))
    ran = synth("weights", "get", "swinfusion-mef")
    assert ran.code == 2 and ran.error.startswith(f"synth: error: {url}: ") and "\n" not in ran.err.strip()
    assert ran.error.endswith(f"get this file elsewhere and put it at {cache / 'swinfusion-mef.pth'}")
    assert list(cache.iterdir()) == []


def test_a_missing_page_and_a_wrong_scheme_are_refused(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, reason in ((served[1] + ".gone", "File not found|Not Found"), ("file:///etc/hosts", "not a web address")):
        monkeypatch.setitem(weights.WEIGHTS, "swinfusion-vif", replace(weights.WEIGHTS["swinfusion-vif"], url=url))
        with pytest.raises(UserError, match=reason):
            weights.get_weights("swinfusion-vif")


def test_mistakes_are_one_line(synth: Synth, tmp_path: Path) -> None:
    for args, message in (
        (("get", "defuse"), "'defuse' has no address of its own: download it from https://drive.google.com/"),
        (
            ("get", "swinfusion-vfi"),
            "unknown weights 'swinfusion-vfi': did you mean 'swinfusion-vif'? allowed: defuse, ",
        ),
        (("add", "defuse", tmp_path / "none.pth"), f"{tmp_path / 'none.pth'}: no such file"),
    ):
        ran = synth("weights", *args)
        assert ran.code == 2 and ran.error.startswith(f"synth: error: {message}") and ran.err.count("\n") == 1


@pytest.mark.parametrize("wrapper", [None, "params", "state_dict"])
def test_add_takes_a_checkpoint_with_or_without_a_wrapper(
    synth: Synth, tmp_path: Path, cache: Path, state: dict[str, torch.Tensor], wrapper: str | None
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, path)
    ran = synth("weights", "add", "swinfusion-mff", path)
    assert (ran.code, ran.out.strip()) == (0, f"swinfusion-mff: {cache / 'swinfusion-mff.pth'}")
    assert weights.find_weights("swinfusion-mff") == cache / "swinfusion-mff.pth"
    listed = synth("weights", "list")
    assert str(cache / "swinfusion-mff.pth") in listed.out and "run synth weights get swinfusion-vif" in listed.out


def test_add_takes_safetensors_in_place_of_what_was_there(
    tmp_path: Path, cache: Path, state: dict[str, torch.Tensor]
) -> None:
    torch.save(state, tmp_path / "one.pth")
    weights.add_weights("swinfusion-vif", tmp_path / "one.pth")
    save_file({name: entry.clone() for name, entry in state.items()}, tmp_path / "two.safetensors")
    weights.add_weights("swinfusion-vif", tmp_path / "two.safetensors")
    assert [p.name for p in cache.iterdir()] == ["swinfusion-vif.safetensors"]


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (exec, ("raise SystemExit('run')",))


def test_what_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, cache: Path, state: dict[str, torch.Tensor]
) -> None:
    def saved(name: str, value: object) -> Path:
        torch.save(value, tmp_path / name)
        return tmp_path / name

    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Evil()))
    text, empty, bad = tmp_path / "text.pth", tmp_path / "empty.pth", tmp_path / "bad.safetensors"
    text.write_text("not a checkpoint at all")
    empty.write_bytes(b"")
    bad.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    less = dict(list(state.items())[1:])
    shape = {**state, "conv_last3.bias": torch.zeros(2)}
    more = {**state, "head.weight": torch.zeros(1)}
    nan = {**state, "conv_last3.bias": state["conv_last3.bias"] * float("nan")}
    whole = {**state, "conv_last3.bias": state["conv_last3.bias"].int()}
    for path, message in (
        (raw, "holds more than tensors, and what is not a tensor is never run"),
        (saved("evil.pth", {"params": Evil()}), "holds more than tensors"),
        (text, "not a checkpoint that can be read"),
        (empty, "not a checkpoint that can be read"),
        (bad, "not a checkpoint that can be read"),
        (saved("list.pth", [1, 2]), "must hold a state dict"),
        (saved("less.pth", less), "not a checkpoint of SwinFusion: 1 entries missing, such as conv_first1_A.weight"),
        (saved("more.pth", more), "1 entries too many, such as head.weight"),
        (saved("shape.pth", shape), "1 entries of another shape, such as conv_last3.bias"),
        (saved("nan.pth", nan), "conv_last3.bias holds a number that is NaN: weights must be finite"),
        (saved("whole.pth", whole), "conv_last3.bias is of type int32; must be float16, bfloat16, float32 or float64"),
    ):
        with pytest.raises(UserError) as error:
            weights.add_weights("swinfusion-vif", path)
        assert str(error.value).startswith(f"{path}: ") and message in str(error.value), path
        assert "\n" not in str(error.value)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_auto_takes_the_papers_fuser_where_its_weights_are(cache: Path) -> None:
    assert choice.choose_fuser("auto", "vif", "msrs", has_gt=False) == "pyramid"
    assert choice.choose_fuser("auto", "mff", "scenes", has_gt=True) == "dataset"
    assert choice.better_fuser("pyramid", "vif") == ("swinfusion (run synth weights get swinfusion-vif)")
    assert choice.better_fuser("dataset", "mff") is None and choice.fuser_weights("pyramid", "vif") is None
    with pytest.raises(UserError, match=r"no weights 'defuse' in .*synth weights add defuse FILE"):
        choice.choose_fuser("paper", "mef", "sice", has_gt=True)
    cache.mkdir(parents=True)
    (cache / "swinfusion-vif.pth").write_bytes(b"one")
    (cache / "defuse.pth").write_bytes(b"two")
    assert choice.choose_fuser("auto", "vif", "msrs", has_gt=False) == "swinfusion"
    assert choice.choose_fuser("auto", "mef", "sice", has_gt=False) == "defuse"
    assert choice.choose_fuser("paper", "mff", "realmff", has_gt=True) == "defuse"
    assert choice.choose_fuser("pyramid", "vif", "msrs", has_gt=True) == "pyramid"
    first = choice.fuser_weights("defuse", "mef")
    assert first is not None and len(first) == 16
    (cache / "defuse.pth").write_bytes(b"three")
    assert choice.fuser_weights("defuse", "mef") != first
    with pytest.raises(UserError, match="no ground truth of its own"):
        choice.choose_fuser("dataset", "vif", "msrs", has_gt=False)
