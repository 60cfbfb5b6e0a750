"""Models with a pretrained tokenizer and prompt encoder: fitted, saved, embedded, moved, pushed and pulled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import made_shards
from PIL import Image
from t5s import t5
from tiny import small
from vaes import dc, kl, saved, tiny

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly, Design, Parts
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.weights.tensors import read_tensors
from conftest import ROOT, Ran, save, textured
from fakehub import FakeHub

# The hub's library uploads by a form of its transport that is going out of use.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")]

Train = Callable[..., Ran]

NARROW = ("depth=1", "heads=2", "width=32", "expert_width=16", "shared_width=16", "lora=8")
FIT = ("--steps", "2", "--batch", "2", "--accumulate", "1", "--crop", "32", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("shards")) / "vif"


@pytest.fixture
def narrow() -> list[str]:
    return [word for item in NARROW for word in ("--set", f"config.{item}")]


@pytest.fixture
def run(train: Train, shards: Path, tmp_path: Path, narrow: list[str]) -> Path:
    """A run of tiny-reg with a random VAE and a random T5, which are in ``parts``."""
    saved(tmp_path / "parts/vae", tiny)
    t5(tmp_path / "parts/t5")
    parts = ("--tokenizer", tmp_path / "parts/vae", "--text", tmp_path / "parts/t5")
    ran = train("fit", shards, "--preset", "tiny-reg", *parts, "--out", tmp_path / "run", *FIT, *narrow)
    assert ran.code == 0, ran.err
    return tmp_path / "run"


def fused(folder: Path | str, **options: object) -> np.ndarray:
    pipeline = FusionPipeline.from_pretrained(folder, **options)  # type: ignore[arg-type]
    return pipeline(textured(1, 48, 40), textured(2, 48, 40), task="vif", prompt="remove the haze")


def test_fitted_and_fused_from_the_command_line(train: Train, run: Path, tmp_path: Path) -> None:
    design = json.loads((run / "pipeline.json").read_text())
    assert design["tokenizer"] == str(tmp_path / "parts/vae") and design["text"] == str(tmp_path / "parts/t5")
    assert (design["config"]["latent_channels"], design["config"]["text_width"]) == (16, 16)
    assert sorted(design["digests"]) == ["text", "tokenizer"]
    names = read_tensors(run / "model.safetensors")[0]
    assert all(name.startswith("network.") for name in names), "what others trained is not in the weights"
    a, b = save(tmp_path / "a.png", textured(1, 48, 40)), save(tmp_path / "b.png", textured(2, 48, 40, channels=1))
    ran = train("fuse", a, b, "-o", tmp_path / "o.png", "--task", "vif", "--prompt", "remove the haze", "--model", run)
    assert ran.code == 0, ran.err
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (48, 40)


def test_the_paper_s_presets_take_other_parts(train: Train, shards: Path, tmp_path: Path, narrow: list[str]) -> None:
    vae, words = saved(tmp_path / "vae", kl), t5(tmp_path / "t5")
    for preset in ("mmaif-reg", "mmaif-fm"):
        out = tmp_path / preset
        parts = ("--tokenizer", vae, "--text", f"t5-xl={words}", "--text-cache", tmp_path / "cache")
        ran = train("fit", shards, "--preset", preset, *parts, "--out", out, *FIT, *narrow)
        assert ran.code == 0, ran.err
        assert json.loads((out / "pipeline.json").read_text())["text"] == f"t5-xl={words}"
        assert fused(out).shape == (40, 48, 3)
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    again = train("fit", shards, "--preset", "mmaif-fm", *parts, "--out", out, *FIT, *narrow)
    assert again.code == 0 and "going on after step 2" in again.err
    saved(vae, kl, seed=1)
    again = train("fit", shards, "--preset", "mmaif-fm", *parts, "--out", out, *FIT, *narrow)
    assert again.code == 2 and "its tokenizer is not the" in again.error


def test_parts_that_moved_are_named_and_found_again(run: Path, tmp_path: Path) -> None:
    expected = fused(run)
    shutil.move(tmp_path / "parts", tmp_path / "moved")
    with pytest.raises(UserError) as error:
        fused(run)
    assert str(error.value) == f"{run}: pipeline.json: --tokenizer {tmp_path}/parts/vae: no such folder"
    parts = Parts(tokenizer=str(tmp_path / "moved/vae"), text=str(tmp_path / "moved/t5"))
    np.testing.assert_array_equal(fused(run, parts=parts), expected)
    saved(tmp_path / "moved/vae", tiny, seed=1)
    with pytest.raises(UserError, match=r"its tokenizer is not the .* of its training: that had the files of digest"):
        fused(run, parts=parts)


def test_a_tokenizer_of_other_latents_is_refused(tmp_path: Path) -> None:
    """The tokenizer is checked by name and grid; another copy of the same one is accepted."""
    own = Design("mmaif", replace(small().config, latent_channels=16), "flux", "bytes", small().objective)
    assembly = Assembly(own, torch.Generator(), Parts(tokenizer=f"flux={saved(tmp_path / 'vae', kl)}"))
    assert assembly.design.tokenizer == "flux"
    coarse = saved(tmp_path / "dc", dc)
    for given, said in (
        (f"taesd3={saved(tmp_path / 'tiny', tiny)}", "the model knows the latents of 'flux', not of 'taesd3'"),
        (f"{coarse}", "makes latents of f = 32 and z = 4; those of the model's 'flux' have f = 8 and z = 16"),
        ("dct", "the model knows the latents of 'flux', not of 'dct'"),
    ):
        with pytest.raises(UserError) as error:
            Assembly(own, torch.Generator(), Parts(tokenizer=given))
        assert str(error.value) == f"--tokenizer {given}: {said}"
    misfit = replace(own, tokenizer="dct")
    with pytest.raises(UserError, match=r"tokenizer 'dct' makes 192 latent channels, .*latent_channels is 16"):
        Assembly(misfit, torch.Generator())


BOTH_WAYS = """
import sys
import torch
from clearfuse import FusionPipeline

folder, backend = sys.argv[1:]
compiled = FusionPipeline.from_pretrained(folder, compiled=True)
if backend != "inductor":
    compiled.assembly.network.compile(backend=backend)
rng = torch.Generator().manual_seed(1)
a, b = (torch.rand(1, 3, 32, 48, generator=rng) * 2 - 1 for _ in range(2))
made = [
    one.assembly.fuse(a, b, ["remove the haze"], torch.Generator().manual_seed(2))
    for one in (FusionPipeline.from_pretrained(folder), compiled)
]
print(torch._dynamo.utils.counters["stats"]["unique_graphs"], float((made[0] - made[1]).abs().max()))
"""
"""A process of its own: the checks of shapes that the tests run under are no code to compile."""


def test_compiled_it_says_the_same(tmp_path: Path) -> None:
    """With torch.compile's graphs and eager kernels.

    ``CLEARFUSE_COMPILE=inductor`` compiles them to machine code, which takes over a minute and a C++ compiler.
    """
    backend = os.environ.get("CLEARFUSE_COMPILE", "aot_eager")
    if backend == "inductor" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("inductor needs a C++ compiler")
    design = small()
    design = replace(design, config=replace(design.config, depth=1))
    pipeline = FusionPipeline(Assembly(design, torch.Generator().manual_seed(0)))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipeline.assembly.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
    pipeline.save_pretrained(tmp_path)
    command = [sys.executable, "-c", BOTH_WAYS, str(tmp_path), backend]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    graphs, difference = ran.stdout.split()
    assert int(graphs) > 0 and float(difference) < 1e-4


@pytest.mark.gpu
def test_compiled_on_cuda_it_says_the_same(tmp_path: Path) -> None:
    made = FusionPipeline(Assembly(small(), torch.Generator().manual_seed(0)))
    made.save_pretrained(tmp_path)
    eager = FusionPipeline.from_pretrained(tmp_path, "cuda")
    compiled = FusionPipeline.from_pretrained(tmp_path, "cuda", compiled=True)
    images = textured(1, 48, 40), textured(2, 48, 40, channels=1)
    here, there = (one(*images, task="vif", prompt="remove the haze").astype(int) for one in (eager, compiled))
    assert abs(here - there).max() <= 3, "grey levels, in bf16"


def test_embedded_parts_go_with_the_model(run: Path, tmp_path: Path) -> None:
    expected = fused(run)
    FusionPipeline.from_pretrained(run).save_pretrained(tmp_path / "whole", embed=True)
    shutil.rmtree(tmp_path / "parts")
    held = sorted(str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*.*"))
    assert held == [
        "model.safetensors", "pipeline.json", "text/config.json", "text/model.safetensors", "text/tokenizer.json",
        "tokenizer/config.json", "tokenizer/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    np.testing.assert_array_equal(fused(tmp_path / "whole"), expected)


def test_compiled_weights_keep_their_names(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda self: asked.append(self))
    pipeline = FusionPipeline.from_pretrained(run, compiled=True)
    assert asked == [pipeline.assembly.network]


def test_pushed_and_pulled(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    expected = fused(run)
    pipeline = FusionPipeline.from_pretrained(run)
    with pytest.raises(
        UserError, match=r"me/fusion: the tokenizer is a folder of this machine, .* push with embed=True"
    ):
        pipeline.push_to_hub("me/fusion")
    assert pipeline.push_to_hub("me/fusion", embed=True) == f"{hub.url}/me/fusion"
    files = hub.files("me/fusion")
    assert sorted(files)[:3] == ["README.md", "model.safetensors", "pipeline.json"] and len(files) == 8
    assert hub.repositories["me/fusion"].private
    assert files["README.md"].decode().startswith("---\nlibrary_name: clearfuse\n")
    with pytest.raises(UserError, match=r"others/fusion: can't be pushed: .*rights to create"):
        pipeline.push_to_hub("others/fusion", embed=True)
    shutil.rmtree(tmp_path / "parts")
    np.testing.assert_array_equal(fused("me/fusion"), expected)
    with pytest.raises(UserError, match=r"the tokenizer can't be embedded: .*config.json is gone"):
        pipeline.push_to_hub("me/fusion", embed=True)
    with pytest.raises(UserError, match=r"me/nothing: no such folder, and the Hugging Face hub has none either: .*404"):
        fused("me/nothing")
