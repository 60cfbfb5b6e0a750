"""Fixtures: small made pairs on disk, the shared data where it is there, and the command line as a function."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.records import Origin, PromptRecord, SampleMeta
from clearfuse.synth.shards.sample import Sample
from fakehub import TOKEN, FakeHub, fake_hub

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers, a thread each: torch's here, numpy's by the Makefile
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("suite", deadline=None)  # a machine that does other work too takes its time
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent


SLOW = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.slow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out, modules of nothing else are not read in: a sixth of the collecting."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return True if SLOW.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip, with the reason, where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """A shell's background job ignores them, and so would the processes that the tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Facts that the package keeps go to a folder of this session, not to the user's."""
    os.environ["CLEARFUSE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pairs: $CLEARFUSE_SHARED, or ``shared`` beside the checkout."""
    path = Path(os.environ.get("CLEARFUSE_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip("needs the shared data: set CLEARFUSE_SHARED")
    return path


def textured(seed: int, width: int = 160, height: int = 128, channels: int = 3) -> np.ndarray:
    """A made picture with edges, texture and a bright top: uint8 ``(h, w, c)``."""
    rng = generator(seed)
    small = rng.random((height // 8, width // 8, channels), dtype=np.float32)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    image += 0.15 * rng.random((height, width, channels), dtype=np.float32)
    image[height // 3 :, width // 4 : width // 2] *= 0.3
    image[: height // 5] = image[: height // 5] * 0.2 + 0.75
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path)
    return path


@pytest.fixture
def msrs(tmp_path: Path) -> Path:
    """A made folder in the layout of MSRS: six training pairs and two test pairs."""
    root = tmp_path / "MSRS"
    for split, numbers in (("train", range(1, 7)), ("test", range(7, 9))):
        for number in numbers:
            save(root / split / "vi" / f"{number:05d}D.png", textured(number))
            save(root / split / "ir" / f"{number:05d}D.png", textured(100 + number, channels=1))
    (root / "notes.txt").write_text("not an image")
    return root


def sample_meta(**fields: Any) -> SampleMeta:
    """What the ``json`` of a sample says; ``fields`` in place of the usual."""
    usual: dict[str, Any] = {
        "schema": 1, "task": "vif", "dataset": "msrs", "pair": "1", "variant": 0, "split": "train", "sources": {},
        "crop": (0, 0, 64, 64), "ratio": "1:1", "channels": {"a": 3, "b": 1, "gt": 3}, "n": 0, "steps": (),
        "prompt": PromptRecord(templates=(), strength=None, asked=()), "fuser": Origin(name="pyramid", weights=None),
        "depth": None, "seed": 0, "recipe": "vif",
    }  # fmt: skip
    return SampleMeta(**(usual | fields))


def changed(sample: Sample, **fields: Any) -> Sample:
    """A sample whose ``json`` says something else."""
    return replace(sample, meta=sample.meta.model_copy(update=fields))


@pytest.fixture
def folder_pair(tmp_path: Path) -> str:
    """Two folders of four pairs, as ``--data folder=`` takes them."""
    for number in range(4):
        save(tmp_path / "near" / f"{number}.png", textured(number))
        save(tmp_path / "far" / f"{number}.jpg", textured(50 + number))
    return f"{tmp_path / 'near'},{tmp_path / 'far'}"


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error line: the last of standard error; tracebacks fail here."""
        assert "Traceback" not in self.err, self.err
        return self.err.strip().splitlines()[-1]


def _runner(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*args: str | Path) -> Ran:
        main = import_module(f"{name}.cli").main
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Ran(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def synth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run ``synth`` in this process: ``synth("build", "--task", "vif")``."""
    return _runner("synth", monkeypatch, capsys)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run ``train`` in this process: ``train("eval", "shards")``."""
    return _runner("train", monkeypatch, capsys)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub of our own, a token that it knows, a cache of its own, and no transport but HTTP."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with fake_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub


def run_process(*args: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m clearfuse.synth.cli.app …`` as a process of its own."""
    command = [sys.executable, "-m", "clearfuse.synth.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
