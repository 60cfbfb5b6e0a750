"""T5 as a prompt encoder: agreement with the network, masks, caching, and error messages for folders."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from t5s import t5

from clearfuse.synth.types import UserError
from clearfuse.train.text import build_text, find_text, width_of
from clearfuse.train.text import t5 as module
from clearfuse.train.text.t5 import T5Encoder

pytestmark = pytest.mark.slow  # transformers takes seconds to import

PROMPTS = ["remove the haze", "clear the snow and fix the noise from both images in the image", "remove the haze", ""]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5(tmp_path_factory.mktemp("t5") / "flan")


def encoder(folder: Path, store: Path | None = None) -> T5Encoder:
    found = find_text(str(folder), seeded(), store).encoder
    assert isinstance(found, T5Encoder)
    return found


def test_embeddings_are_the_network_s(folder: Path) -> None:
    from transformers import T5EncoderModel

    text, mask = encoder(folder)(PROMPTS)
    assert text.shape == (4, 14, 16) and mask.sum(1).tolist() == [4, 14, 4, 1] and text.dtype == torch.float32
    network = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16).float()
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ids = torch.tensor([[words["remove"], words["the"], words["haze"], 1]])
    with torch.no_grad():
        own = network(input_ids=ids).last_hidden_state
    torch.testing.assert_close(text[0, :4], own[0], atol=1e-6, rtol=1e-6)
    assert torch.equal(text[0], text[2]) and (text[0, 4:] == 0).all()


def test_the_weights_are_bf16_from_the_first_and_widened_on_a_cpu_when_needed(folder: Path, tmp_path: Path) -> None:
    def weights(one: T5Encoder) -> tuple[set[torch.dtype], int]:
        found = list(one.networks[0].parameters())
        return {each.dtype for each in found}, sum(each.nbytes for each in found)

    one = encoder(folder, tmp_path)
    count = sum(each.numel() for each in one.networks[0].parameters())
    assert weights(one) == ({torch.bfloat16}, 2 * count)
    first = one(PROMPTS)[0]
    assert weights(one) == ({torch.float32}, 4 * count)
    whole = load_file(folder / "model.safetensors")["shared.weight"]
    assert torch.equal(one.networks[0].get_parameter("shared.weight"), whole.bfloat16().float())
    other = encoder(folder, tmp_path)
    assert torch.equal(other(PROMPTS)[0], first) and weights(other) == ({torch.bfloat16}, 2 * count), "all were kept"


@pytest.mark.gpu
def test_on_cuda_it_stays_in_bf16(folder: Path) -> None:
    one, here = encoder(folder), encoder(folder)(PROMPTS)[0]
    text, mask = one.to("cuda")(PROMPTS)
    assert {each.dtype for each in one.networks[0].parameters()} == {torch.bfloat16} and mask.is_cuda
    torch.testing.assert_close(text.cpu(), here, atol=0.05, rtol=0.05)


def test_a_prompt_is_the_same_beside_any_other_bit_for_bit(folder: Path) -> None:
    together, mask = encoder(folder)(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(encoder(folder)([prompt])[0][0], together[i, mask[i]])


def test_it_is_frozen_and_nobody_s_parameter(folder: Path) -> None:
    one = encoder(folder)
    assert not one.trainable and list(one.parameters()) == [] and one.state_dict() == {} and copy.deepcopy(one) is one
    with torch.autocast("cpu", torch.bfloat16):
        inside = one(PROMPTS)[0]
    assert torch.equal(inside, encoder(folder)(PROMPTS)[0]) and not inside.requires_grad
    assert one.train().networks[0].training is False


def test_what_was_embedded_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    embedded = T5Encoder._encode

    def counted(self: T5Encoder, prompts: list[str]) -> list[torch.Tensor]:
        asked.append(prompts)
        return embedded(self, prompts)

    monkeypatch.setattr(T5Encoder, "_encode", counted)
    monkeypatch.setattr(module, "CACHE_SIZE", 2)
    store = tmp_path / "store"
    one = encoder(folder, store)
    first = one(PROMPTS)[0]
    assert len(asked) == 3 and len(one._cache) == 2
    one(PROMPTS[1:])
    assert len(asked) == 3, "what memory dropped, the store has"
    files = sorted(store.rglob("*"))
    assert [path.suffix for path in files if path.is_file()] == [".safetensors"] * 3, "nothing half-written is left"
    other = encoder(folder, store)
    assert torch.equal(other(PROMPTS)[0], first) and len(asked) == 3
    encoder(t5(tmp_path / "another", seed=1), store)(PROMPTS[:1])
    assert len(asked) == 4, "another network's embeddings are not this one's"
    encoder(folder)(PROMPTS[:1])
    assert len(asked) == 5


def test_a_long_prompt_is_cut_and_still_ends(folder: Path) -> None:
    text, mask = encoder(folder)(["snow " * 300])
    assert text.shape[1] == module.LIMIT and mask.all()
    assert torch.equal(text, encoder(folder)(["snow " * 400])[0])
    assert encoder(folder).is_cut("snow " * 300) and not encoder(folder).is_cut("snow " * 20)


def test_a_script_that_the_vocabulary_lacks_is_said(folder: Path) -> None:
    assert encoder(folder).has_unknown("去除雾") and not encoder(folder).has_unknown("remove the haze")


def test_space_capitals_and_the_end_make_no_difference(folder: Path, tmp_path: Path) -> None:
    one = encoder(folder, tmp_path / "store")
    first = one(["remove the haze"])[0]
    assert torch.equal(first, one([" Remove\u00a0the\nhaze. "])[0])
    assert len([*(tmp_path / "store").rglob("*.safetensors")]) == 1


def test_a_whole_t5_s_decoder_is_left_out(tmp_path: Path) -> None:
    found = find_text(str(t5(tmp_path / "whole", decoder=True)), seeded())
    assert found.encoder(PROMPTS)[0].isfinite().all() and found.digest
    assert [path.name for path in found.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    named = find_text(f"t5-xl={tmp_path / 'whole'}", seeded())
    assert named.reference == f"t5-xl={tmp_path / 'whole'}" and named.digest == found.digest
    given = [
        width_of(each) for each in ("t5-xl", f"t5-xl={tmp_path / 'whole'}", str(tmp_path / "whole"), "bytes", "none")
    ]
    assert given == [2048, 16, 16, 128, 0]


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    def said(change: Callable[[Path], object]) -> str:
        path = t5(tmp_path / str(len(list(tmp_path.iterdir()))))
        change(path)
        with pytest.raises(UserError) as error:
            build_text(str(path), seeded())
        assert "\n" not in str(error.value) and str(error.value).startswith(f"--text {path}: ")
        return str(error.value)

    def widths(folder: Path, text: str) -> str:
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError) as error:
            width_of(str(folder))
        return str(error.value)

    def lose(path: Path) -> None:
        state = load_file(path / "model.safetensors")
        save_file(
            {k: v for k, v in state.items() if "SelfAttention.q" not in k}, path / "model.safetensors", {"format": "pt"}
        )

    assert "config.json is missing" in said(lambda p: (p / "config.json").unlink())
    assert "config.json: unknown model_type 'bert': allowed: t5" in said(
        lambda p: (p / "config.json").write_text('{"model_type": "bert"}')
    )
    assert "tokenizer.json is missing" in said(lambda p: (p / "tokenizer.json").unlink())
    assert "tokenizer.json: " in said(lambda p: (p / "tokenizer.json").write_text("{"))
    for field, fault in (
        ('"d_model": "wide"', "d_model = 'wide': must be a whole number"),
        ('"num_layers": 1000000000', "num_layers = 1000000000: must be in [1, 1024]"),
    ):
        assert f"config.json: {fault}" in widths(tmp_path, f'{{"model_type": "t5", {field}}}')
    assert "config.json: not valid JSON" in widths(tmp_path, "[" * 100_000)
    assert "2 weights are missing, too many or of another shape" in said(lose)
    assert "can't be loaded from" in said(lambda p: (p / "model.safetensors").write_bytes(b"nothing"))
    path = t5(tmp_path / "numbers") / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if "SelfAttention.q" in name)
    for bad, what in (
        (state[name] * float("inf"), "holds a number that is"), (state[name].long(), "is of type int64"),
        (state[name].double() + 1e300, "holds a number that is infinite as bfloat16"),
    ):  # fmt: skip
        save_file(state | {name: bad}, path)
        with pytest.raises(UserError) as error:
            build_text(str(path.parent), seeded())
        assert str(error.value).startswith(f"{path}: {name} {what}")
    assert "can't be loaded from" in said(lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"))


def test_by_name_it_comes_from_the_hub_at_a_pinned_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def download(repo: str, **options: object) -> str:
        asked.append({"repo": repo, **options})
        raise OSError("You are offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError) as error:
        build_text("t5-xl", seeded())
    assert str(error.value) == (
        "--text t5-xl: google/flan-t5-xl cannot be fetched (You are offline); download config.json, tokenizer.json, "
        "model.safetensors* and the files that its index names from https://huggingface.co/google/flan-t5-xl and give "
        "their folder: --text t5-xl=DIR"
    )
    assert [one["local_files_only"] for one in asked] == [True, False]
    assert {one["revision"] for one in asked} == {"7d6315df2c2fb742f0f5b556879d730926ca9001"}


def test_the_real_tokenizer_s_words(shared: Path) -> None:
    if not (shared / "weights/tokenizer_t5").is_dir():
        pytest.skip("needs the shared weights")
    words = module.read_vocabulary(shared / "weights/tokenizer_t5", "--text here")
    codes = words.encode("Edit out the snow from this scene, and fix the noise in this photo.").ids
    assert codes[-1] == 1 and len(codes) == 17 and words.decode(codes).startswith("Edit out the snow")
