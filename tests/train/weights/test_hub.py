"""Networks of the hub: what the README's commands name, at which commit, and which files of them are fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jits import SMALL, cosmos
from made import made_shards
from omnigens import omnigen
from safetensors.torch import load_file, save_file
from t5s import t5

from clearfuse.synth.types import UserError
from clearfuse.train.cli.defaults import default_preset
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.text import find_text
from clearfuse.train.text.t5 import PUBLISHED as TEXTS
from clearfuse.train.tokenizers import PUBLISHED, find_tokenizer
from clearfuse.train.tokenizers import cosmos as cosmos_module
from clearfuse.train.tokenizers.taef2 import Taef2
from clearfuse.train.weights.base import PUBLISHED as BASES
from clearfuse.train.weights.source import INDEX
from conftest import ROOT, Ran, textured
from fakehub import FakeHub

pytestmark = pytest.mark.slow  # transformers takes seconds to import

Train = Callable[..., Ran]
NARROW = ("depth=1", "heads=2", "width=32", "expert_width=16", "shared_width=16", "lora=8")
FIT = ("--batch", "2", "--accumulate", "1", "--crop", "32", "--workers", "0", "--device", "cpu", "--tracker", "none")
ENCODER, REST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def in_parts(folder: Path) -> Path:
    """A whole T5's folder as the large ones are published: the encoder in one file, the decoder in another."""
    whole = load_file(folder / "model.safetensors")
    parts = {ENCODER: {}, REST: {}}
    for name, tensor in whole.items():
        parts[REST if name.startswith(("decoder.", "lm_head.")) else ENCODER][name] = tensor
    for file, tensors in parts.items():
        save_file(tensors, folder / file, {"format": "pt"})
    places = {name: file for file, tensors in parts.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def published(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Small random networks in place of those that the paper's presets name, at their commits."""
    monkeypatch.setattr(cosmos_module, "PUBLISHED", SMALL)
    cosmos(tmp_path / "cosmos")
    hub.hold(PUBLISHED["cosmos"].repo, tmp_path / "cosmos", str(PUBLISHED["cosmos"].revision))
    hub.hold(TEXTS["t5-xl"].repo, in_parts(t5(tmp_path / "t5", decoder=True)), str(TEXTS["t5-xl"].revision))
    return hub


def presets_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Those that its lines of ``train`` name, and what one without takes on CUDA."""
    monkeypatch.setattr("clearfuse.train.cli.defaults.find_device", lambda: torch.device("cuda"))
    found = re.findall(r"train (?:fit|cache) .*?--preset ([\w-]+)", (ROOT / "README.md").read_text())
    return {*found, default_preset()}


def test_the_readme_s_gpu_lines_find_their_parts(published: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    presets = presets_of_the_readme(monkeypatch)
    assert {"mmaif-fm", "mmaif-reg"} <= presets
    for preset in sorted(presets):
        design = PRESETS[preset].design
        tokenizer, text = find_tokenizer(design.tokenizer), find_text(design.text, torch.Generator())
        assert (tokenizer.reference, text.reference) == (design.tokenizer, design.text), "the pinned commits"
        assert tokenizer.tokenizer.encode(torch.zeros(1, 3, 24, 16)).isfinite().all()
        assert text.encoder(["remove the haze"])[0].isfinite().all()
    assert sorted(published.downloads) == sorted(
        ["encoder.jit", "decoder.jit", "config.json", "tokenizer.json", "model.safetensors.index.json", ENCODER]
    ), "each once, and of T5 the encoder alone"


def test_mmaif_fm_is_fitted_as_typed(published: FakeHub, train: Train, tmp_path: Path) -> None:
    """At a narrow network, beside whose preset nothing is said of the parts."""
    shards = made_shards(tmp_path / "made") / "vif"
    narrow = [word for item in (*NARROW, "text_width=16") for word in ("--set", f"config.{item}")]
    ran = train("fit", shards, "--preset", "mmaif-fm", "--out", tmp_path / "run", "--steps", "2", *FIT, *narrow)
    assert ran.code == 0, ran.err
    design = json.loads((tmp_path / "run/pipeline.json").read_text())
    assert (design["tokenizer"], design["text"], design["digests"]) == ("cosmos", "t5-xl", {})
    pipeline = FusionPipeline.from_pretrained(tmp_path / "run")
    images = textured(1, 48, 40), textured(2, 48, 40)
    fused = pipeline(*images, task="vif", prompt="remove the haze")
    pipeline.save_pretrained(tmp_path / "whole", embed=True)
    assert sorted(path.name for path in (tmp_path / "whole/tokenizer").iterdir()) == [
        "decoder.safetensors", "encoder.safetensors",
    ]  # fmt: skip
    published.repositories.clear()
    again = FusionPipeline.from_pretrained(tmp_path / "whole")
    assert (again(*images, task="vif", prompt="remove the haze") == fused).all()


def taef2(hub: FakeHub, folder: Path, commit: str) -> None:
    folder.mkdir()
    torch.manual_seed(len(hub.downloads))
    network = Taef2()
    whole = {}
    for part in ("encoder", "decoder"):
        for key, value in getattr(network, part).state_dict().items():
            number, rest = key.split(".", 1)
            whole[f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"] = value
    save_file(whole, folder / "taef2.safetensors")
    hub.hold(PUBLISHED["taef2"].repo, folder, commit)


def test_the_newest_commit_is_taken_once_said_and_kept(hub: FakeHub, train: Train, tmp_path: Path) -> None:
    first, second = "1" * 40, "2" * 40
    taef2(hub, tmp_path / "first", first)
    shards = made_shards(tmp_path / "made") / "vif"
    narrow = [word for item in NARROW for word in ("--set", f"config.{item}")]
    fit = ("fit", shards, "--preset", "tiny-reg", "--tokenizer", "taef2", "--out", tmp_path / "run", *FIT, *narrow)
    ran = train(*fit, "--steps", "1")
    said = f"--tokenizer taef2: the newest commit of madebyollin/taef2 is taken: --tokenizer taef2@{first}"
    assert ran.code == 0 and said in ran.err.splitlines()
    assert json.loads((tmp_path / "run/pipeline.json").read_text())["tokenizer"] == f"taef2@{first}"
    taef2(hub, tmp_path / "second", second)
    ran = train(*fit, "--steps", "1")
    assert ran.code == 0 and "the newest commit" not in ran.err, "a run that goes on stays with its commit"
    assert FusionPipeline.from_pretrained(tmp_path / "run").design.tokenizer == f"taef2@{first}"
    ran = train(*fit, "--steps", "1", "--overwrite")
    assert ran.code == 0 and f"taef2@{second}" in ran.err
    assert json.loads((tmp_path / "run/pipeline.json").read_text())["tokenizer"] == f"taef2@{second}"


def test_a_cache_s_workers_load_what_was_found(hub: FakeHub, train: Train, tmp_path: Path) -> None:
    taef2(hub, tmp_path / "first", "1" * 40)
    shards = made_shards(tmp_path / "made") / "vif"
    ran = train(
        "cache", shards, "--preset", "tiny-reg", "--tokenizer", "taef2", "--crop", "32", "--out", tmp_path / "latents",
        "--executor", "serial", "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0 and ran.err.count("the newest commit") == 1, ran.err


def test_an_index_that_is_none(hub: FakeHub, tmp_path: Path) -> None:
    folder = in_parts(t5(tmp_path / "t5", decoder=True))
    index = folder / INDEX.replace("*", "model")
    places = json.loads(index.read_text())["weight_map"]
    for held, said in (
        ("{", "index.json: not valid JSON: EOF"),
        (json.dumps({"weight_map": []}), "index.json: weight_map = []: must be a table"),
        (
            json.dumps({"weight_map": {**places, "shared.weight": "../t5.safetensors"}}),
            "= '../t5.safetensors': must be the name of a safetensors file of",
        ),
        (json.dumps({"weight_map": {**places, "shared.weight": REST}}), "can't be loaded from"),
    ):
        index.write_text(held)
        with pytest.raises(UserError) as error:
            find_text(str(folder), torch.Generator())
        assert said in str(error.value) and "\n" not in str(error.value)


def test_adapters_are_pushed_alone_and_name_their_base_by_id_and_commit(hub: FakeHub, tmp_path: Path) -> None:
    """Of a small OmniGen in place of the published one, which every part of the preset names."""
    pytest.importorskip("peft", reason="needs clearfuse[lora]")
    commit = "3" * 40
    hub.hold(BASES["omnigen"].repo, omnigen(tmp_path / "omnigen"), commit)
    pipeline = FusionPipeline(Assembly(PRESETS["ditfuse"].design, torch.Generator().manual_seed(0)))
    design = pipeline.design
    assert (design.base, design.tokenizer, design.text) == (f"omnigen@{commit}",) * 3
    pipeline.push_to_hub("me/ditfuse")
    pushed = hub.files("me/ditfuse")
    assert set(pushed) - {".gitattributes"} == {"README.md", "model.safetensors", "pipeline.json"}
    written = json.loads(pushed["pipeline.json"])
    assert (written["base"], written["digests"]) == (f"omnigen@{commit}", {})
    base = next(data for name, data in hub.files(BASES["omnigen"].repo).items() if name.startswith("transformer/diff"))
    assert len(pushed["model.safetensors"]) < 0.01 * len(base)
    again = FusionPipeline.from_pretrained("me/ditfuse")
    for name, tensor in again.assembly.state_dict().items():
        assert torch.equal(tensor, pipeline.assembly.state_dict()[name])
