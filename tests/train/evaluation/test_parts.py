"""Scoring in parts: interrupted and resumed, in several processes, with folders of results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made import made_shards

from clearfuse.synth.files.folders import LOCK, folder_lock
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import Step, UserError, WorkIncomplete
from clearfuse.train.data.corpus import index
from clearfuse.train.evaluation.evaluate import FILES, STANDARD, evaluate_shards
from clearfuse.train.evaluation.methods.classical import CLASSICAL, Fault, restore
from clearfuse.train.evaluation.methods.fusers import METHODS, ModelMethod, fuser_methods, model_methods, trained_on
from clearfuse.train.evaluation.methods.networks import Network, network_methods
from clearfuse.train.evaluation.methods.results import Results, result_methods
from clearfuse.train.evaluation.parts import planned, score_parts
from clearfuse.train.evaluation.samples import cut, plan_portions
from clearfuse.train.evaluation.scoring import Method, choose_metrics
from clearfuse.train.runs.record import RUN
from conftest import Ran, changed, folder_bytes, sample_meta, save, textured

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@dataclass(frozen=True)
class Truth:
    """Returns the ground truth; each call writes a file, and one of them kills its process."""

    calls: Path
    deadly: int = -1

    def __call__(self, sample: Sample) -> np.ndarray:
        name = f"{sample.meta.task}-{sample.key}"
        number = len(list(self.calls.iterdir()))
        (self.calls / f"{name}-{number}").touch()
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample.images["gt"]


def counting(calls: Path, deadly: int = -1) -> tuple[Method, ...]:
    calls.mkdir(exist_ok=True)
    return (Method("truth", Truth(calls, deadly)), *METHODS.values())


def both(shards: Path) -> list[str]:
    return [str(shards / task) for task in ("vif", "mef")]


def run(shards: Path, out: Path, methods: tuple[Method, ...], workers: int = 1) -> dict[str, bytes]:
    evaluate_shards(both(shards), str(out), metrics="PSNR,Qabf", methods=methods, examples=1, workers=workers)
    return folder_bytes(out)


def test_any_number_of_processes_and_any_kill_give_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    whole = run(shards, tmp_path / "one", counting(tmp_path / "a"))
    assert sorted(whole) == sorted(FILES)
    assert run(shards, tmp_path / "two", counting(tmp_path / "b"), workers=2) == whole
    # The worker at the third sample dies; its part is another's, and nobody is asked.
    assert run(shards, tmp_path / "three", counting(tmp_path / "c", deadly=2), workers=2) == whole


KILLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_parts import counting, run
run(Path({shards!r}), Path({out!r}), counting(Path({calls!r}), {deadly}))
"""


def test_a_killed_evaluation_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    whole = run(shards, tmp_path / "whole", counting(tmp_path / "a"))
    out, calls = tmp_path / "killed", tmp_path / "b"
    paths = [str(Path(__file__).parents[n]) for n in range(3)]
    for deadly in (2, 5):
        code = KILLED.format(paths=paths, shards=str(shards), out=str(out), calls=str(calls), deadly=deadly)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = [path.name[:6] for path in out.iterdir() if path.name != LOCK]
        assert left == ["parts-"], "no report, the parts alone"
    assert run(shards, out, counting(calls)) == whole
    scored = [path.name.rpartition("-")[0] for path in calls.iterdir()]
    assert len(scored) == 8 + 2 + 1, "each sample once, the two that killed again, one example fused again"


def test_one_evaluation_a_folder(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with folder_lock(out, "evaluation"), pytest.raises(UserError) as refused:
        run(shards, out, tuple(METHODS.values()))
    assert str(refused.value) == f"another evaluation is writing to {out}: wait for it, or use another --out"
    (out / ".tmp-9-deadbeef-report.csv").touch()
    assert sorted(run(shards, out, tuple(METHODS.values()))) == sorted(FILES)


def test_a_model_is_scored_without_the_prompts_too(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pipeline(a: np.ndarray, b: np.ndarray, *, task: str, prompt: str) -> np.ndarray:
        asked.append(prompt)
        return a

    monkeypatch.setattr("clearfuse.train.evaluation.methods.fusers.load_cached", lambda *_: pipeline)
    methods = model_methods(["a/model"], None, None, {}, unprompted=True)
    sample = next(read_samples(next((shards / "mef").glob("*.tar"))))
    assert [method.name for method in methods] == ["a/model", "a/model, no prompt"]
    assert all(method.fuse(sample) is not None for method in methods) and asked == [sample.prompt, ""]
    assert len(model_methods(["a/model"], None, None, {})) == 1


def test_a_model_trained_on_these_shards_is_named(shards: Path, tmp_path: Path) -> None:
    corpus = index(both(shards))
    rows = corpus.fingerprint()
    other = [[*row[:3], "0" * 32, "0" * 64] for row in rows]
    portions = plan_portions(both(shards))
    for recorded, count in ((rows, 3), (rows[:1], 1), ([row[:3] for row in rows], 3), (other, 0), ([], 0)):
        folder = tmp_path / f"run-{count}"
        folder.mkdir(exist_ok=True)
        (folder / RUN).write_text(json.dumps({"schema": 1, "settings": {}, "shards": recorded}))
        method = Method("m", ModelMethod(str(folder), None, (), ()))
        said = f"was trained on {count} of these {len(portions)} shards: its scores there are not of new images"
        assert trained_on((method, *METHODS.values()), portions) == ({"m": said} if count else {})
    assert trained_on((Method("m", ModelMethod("a/hub-id", None, (), ())),), portions) == {}


def test_parts_of_other_settings_are_not_taken_for_these(shards: Path, tmp_path: Path) -> None:
    portions = plan_portions(both(shards))
    methods, metrics = tuple(METHODS.values()), choose_metrics("PSNR")
    work = planned(tmp_path, portions, methods, metrics)
    score_parts(work, portions, 1)
    again = planned(tmp_path, portions, methods, metrics)
    assert all(again.done(part) for part in cut(portions))
    named = (Method("pyramid on degraded", methods[0].fuse, identity="another"), methods[1])
    for other in (
        planned(tmp_path, portions, named, metrics),
        planned(tmp_path, portions, methods, choose_metrics("SSIM")),
        planned(tmp_path, plan_portions(both(shards), 5), methods, metrics),
    ):
        assert other.folder != work.folder
    cut_short = work.folder / "0000001.jsonl"
    cut_short.write_bytes(cut_short.read_bytes()[:-20].rpartition(b"\n")[0] + b"\n")
    assert [work.done(part) for part in cut(portions)][:3] == [True, False, True]
    score_parts(work, portions, 1)
    assert work.done(list(cut(portions))[1])


def results(shards: Path, folder: Path, leave_out: str) -> Path:
    """A folder of results by task and key: the ground truths, one left out."""
    for path in sorted(shards.glob("*/*.tar")):
        for sample in read_samples(path):
            if f"{sample.meta.task}/{sample.key}" != leave_out:
                save(folder / sample.meta.task / f"{sample.key}.png", sample.images["gt"])
    return folder


def test_results_of_others_are_scored_and_what_is_missing_is_named(shards: Path, tmp_path: Path, train: Train) -> None:
    folder = results(shards, tmp_path / "theirs", "vif/000000001")
    named = f"theirs={folder}"
    ran = train(
        "eval", *both(shards), "--model", "none", "--results", named, "--metrics", "SSIM", "--out", tmp_path / "r"
    )
    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if "theirs" in line)
    assert line.split()[:3] == ["8", "theirs", "1.0000*"]
    text = (tmp_path / "r/report.md").read_text()
    assert "- theirs: no image for 1 of 8 samples, left out of its means: vif-train-000000.tar 000000001 (" in text
    rows = (tmp_path / "r/report.csv").read_text().splitlines()
    assert sum(row.endswith(",theirs,,,,,") for row in rows) == 1


def test_where_a_result_is_looked_for() -> None:
    sample = Sample("000000007", {}, None, "", sample_meta(dataset="d", pair="x/1", variant=2))
    everywhere = Results(Path(), frozenset({"vif"}), flat=True).names(sample)
    assert everywhere == [
        *("vif/000000007", "d/x/1-v2", "d/x_1-v2", "vif/x/1-v2", "vif/x_1-v2", "000000007", "x/1-v2", "x_1-v2")
    ]
    assert "000000007" not in "".join(Results(Path(), frozenset(), flat=False).names(sample))


@pytest.mark.parametrize("channels", [1, 3])
def test_results_of_sixteen_bits_are_as_bright_as_of_eight(tmp_path: Path, channels: int) -> None:
    """A dark one is not brightened, and none is darkened: white is 65535."""
    sample = Sample("000000007", {"a": textured(1)}, None, "", sample_meta())
    for picture in (textured(2, channels=channels), textured(3, channels=channels) // 16):
        assert cv2.imwrite(str(tmp_path / "000000007.png"), picture[..., ::-1].astype(np.uint16) * 257)
        read = Results(tmp_path, frozenset(), flat=True)(sample)
        assert read is not None and np.array_equal(read, picture)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("folder", "--results folder: must be NAME=DIR"),
        ("a=no/such", "--results a=no/such: no/such is no folder"),
        ("a={empty}", "--results a={empty}: no images in {empty}: allowed are .png, .webp,"),
    ],
)
def test_a_folder_of_results_that_is_none_is_refused(shards: Path, tmp_path: Path, text: str, said: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError) as error:
        result_methods([text.format(empty=empty)], plan_portions(both(shards)))
    assert str(error.value).startswith(said.format(empty=empty))


def test_a_result_of_another_size_is_named(shards: Path, tmp_path: Path) -> None:
    folder = results(shards / "mef", tmp_path / "theirs", "")
    for path in sorted(shards.glob("mef/*.tar")):
        sample = next(iter(read_samples(path)))
        save(folder / f"{sample.key}.png", sample.images["gt"][:-2])
    methods = result_methods([f"b={folder}"], plan_portions([str(shards / "mef")]))
    with pytest.raises(
        WorkIncomplete, match=r"sample 000000000: b: 000000000\.png is \d+x\d+, the pair \d+x\d+: a result has the size"
    ):
        evaluate_shards([str(shards / "mef")], str(tmp_path / "r"), methods=methods, metrics="SSIM")
    assert not (tmp_path / "r").exists()


def test_mistakes_are_one_line(shards: Path, tmp_path: Path, train: Train) -> None:
    for args, said in (
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--fuser", "swinfusio"], "unknown learned fuser 'swinfusio': did you mean 'swinfusion'"),
        (["--fuser", "defuse"], "--fuser defuse: has no weights here: download it from"),
        (["--papers", "--profile", "vifb"], "--papers: goes with the profiles strict and papers, not vifb"),
        (["--restorer", "haze"], "--restorer haze: must be OPERATOR,...=FILE"),
        (["--restorer", "haze=no.pth"], "--restorer haze=no.pth: no.pth: no such file"),
    ):
        ran = train("eval", *both(shards), "--model", "none", "--out", tmp_path / "r", *args)
        assert ran.code == 2 and ran.error.startswith(f"train: error: {said}"), ran.err
        assert not (tmp_path / "r").exists()


def test_two_methods_of_one_name_are_refused(shards: Path, tmp_path: Path) -> None:
    twice = [*STANDARD, STANDARD[0]]
    with pytest.raises(UserError, match=r"two methods are called 'classical \+ pyramid'"):
        evaluate_shards(both(shards), str(tmp_path / "r"), methods=twice)


def test_no_learned_fuser_without_weights() -> None:
    assert fuser_methods(["none"]) == fuser_methods(None) == ()


def test_a_restorer_needs_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.evaluation.methods.networks.find_spec", lambda name: None)
    (tmp_path / "net.safetensors").touch()
    with pytest.raises(UserError, match=r"needs spandrel: pip install 'clearfuse\[restorers\]'"):
        network_methods([f"haze={tmp_path / 'net.safetensors'}"])


def test_a_restorer_restores(tmp_path: Path) -> None:
    """A network of an architecture that spandrel knows, with random weights."""
    pytest.importorskip("spandrel")
    from safetensors.torch import save_file
    from spandrel.architectures.NAFNet import NAFNet

    net = NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    path = tmp_path / "net.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    (method,) = network_methods([f"haze,rain={path}"])
    assert method.name == "networks + pyramid"
    image = np.random.default_rng(1).random((70, 90, 3), dtype=np.float32)
    assert Network(path).run(image).shape == (70, 90, 3) and Network(path).run(image[..., :1]).shape == (70, 90, 1)


class Doubling:
    """A stand-in for spandrel's descriptor: a network on three channels that enlarges by two."""

    input_channels = 3

    def __init__(self) -> None:
        import torch

        self.model = torch.nn.Upsample(scale_factor=2, mode="nearest")

    def __call__(self, planes: Any) -> Any:
        assert planes.shape[1] == 3
        return self.model(planes)


def test_what_enlarges_comes_back_at_its_size_whole_or_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearfuse.train.evaluation.methods.networks.load_network", lambda file: Doubling())
    image = textured(5, width=100, height=90).astype(np.float32) / 255
    network = Network(tmp_path / "net.safetensors")
    assert np.allclose(network.run(image), image, atol=1e-6)
    assert np.allclose(network.run(image[..., :1]), image[..., :1], atol=1e-6)
    for name, value in (("LARGEST", 2000), ("TILE", 40), ("MARGIN", 8)):
        monkeypatch.setattr(f"clearfuse.train.evaluation.methods.networks.{name}", value)
    assert np.allclose(network.run(image), image, atol=1e-6)


def test_a_network_takes_the_place_of_the_classical_restorer(shards: Path, tmp_path: Path) -> None:
    sample = next(iter(read_samples(sorted(shards.glob("vif/*.tar"))[0])))
    hazy = changed(sample, steps=(Step("haze", "a", {}, None),))
    seen: list[float] = []

    def dim(image: np.ndarray, fault: Fault) -> np.ndarray:
        seen.append(float(image.mean()))
        return image * np.float32(0.5)

    out = restore(hazy, "a", {**CLASSICAL, "haze": dim})
    assert len(seen) == 1 and np.abs(out.astype(int) - (sample.images["a"].astype(int) + 1) // 2).max() <= 1
