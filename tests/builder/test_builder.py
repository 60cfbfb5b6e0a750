"""Builds: the same bytes whatever the workers, resume, identity, rejects, variants; and replay of every sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.review.verify import verify
from clearfuse.synth.samples.render import draw_asked
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import UserError, WorkIncomplete
from conftest import folder_bytes, save, textured

pytestmark = pytest.mark.slow

LAST = ["index.json", "croissant.json", "dataset.json", "README.md"]
"""The files that a build writes after its shards, in order."""
COMMON: dict[str, Any] = {"executor": "serial", "n": "2-3"}


def make(out: Path, msrs: Path, **options: Any) -> Any:
    """A small build of the made MSRS folder."""
    return build("vif", out=str(out), data=[f"msrs={msrs}"], **(COMMON | {"shard_size": 2} | options))


def test_a_build_is_what_the_contract_says(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    report = make(out, msrs)
    assert (report.samples, report.shards, report.rejects) == (6, 3, [])
    names = [f"vif-train-{i:06d}.{end}" for i in range(3) for end in ("json", "tar")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, *LAST])
    samples = [sample for i in range(3) for sample in read_samples(out / f"vif-train-{i:06d}.tar")]
    assert [sample.key for sample in samples] == [f"{i:09d}" for i in range(6)]
    for sample in samples:
        meta = sample.meta
        assert meta.schema_ == 1 and (meta.task, meta.dataset, meta.split) == ("vif", "msrs", "train")
        assert len(meta.steps) == meta.n in (2, 3)
        assert set(meta.sources) == {"a", "b"} and all(len(h) == 64 for h in meta.sources.values())
        assert meta.prompt.asked == tuple(range(meta.n))
        assert sample.images["b"].shape[2] == 1 == meta.channels["b"]
        weather = any(step.op in ("haze", "rain", "snow") for step in meta.steps)
        assert (sample.depth is not None) == weather == (meta.depth is not None)
    receipt = json.loads((out / "vif-train-000001.json").read_bytes())
    assert set(receipt) >= {"sha256", "bytes", "offsets", "samples", "rejects", "settings", "digest"}
    text = "".join(path.read_text() for path in out.glob("*.json")) + (out / "README.md").read_text()
    assert str(tmp_path) not in text


def test_every_sample_replays_bit_for_bit(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "out", msrs, variants=2)
    report = verify([str(tmp_path / "out")], replay=True)
    assert (report.ok, report.samples, report.replayed) == (True, 12, 12)


@pytest.mark.slow
def test_the_same_bytes_with_one_and_two_workers(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "serial", msrs)
    make(tmp_path / "shards", msrs, executor="processes", workers=2)
    make(tmp_path / "samples", msrs, executor="processes", workers=4)
    expected = folder_bytes(tmp_path / "serial")
    assert folder_bytes(tmp_path / "shards") == expected
    assert folder_bytes(tmp_path / "samples") == expected


def test_another_seed_is_another_build(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "a", msrs)
    make(tmp_path / "b", msrs, seed=1)
    assert (tmp_path / "a/vif-train-000000.tar").read_bytes() != (tmp_path / "b/vif-train-000000.tar").read_bytes()


def test_resume_renders_only_what_is_missing(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    expected = folder_bytes(out)
    for name in ("vif-train-000001.json", *LAST):
        (out / name).unlink()
    (out / ".tmp-1-deadbeef-vif-train-000001.tar").write_bytes(b"left by a kill")
    stays = (out / "vif-train-000000.tar").stat().st_mtime_ns
    report = make(out, msrs)
    assert report.resumed == 2
    assert folder_bytes(out) == expected
    assert (out / "vif-train-000000.tar").stat().st_mtime_ns == stays


def test_a_finished_build_is_left_as_it_is(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "out", msrs)
    before = folder_bytes(tmp_path / "out")
    assert make(tmp_path / "out", msrs).resumed == 3
    assert folder_bytes(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 5}, "seed was 0, is 5"),
        ({"n": "1"}, "recipe.n was [2, 3], is [1]"),
        ({"codec": "png"}, 'codec was "webp", is "png"'),
        ({"shard_size": 3}, "shard_size was 2, is 3"),
        ({"sets": ["operators.haze.weight=2"]}, "recipe.operators.haze.weight was not set, is 2"),
        ({"limit": 4}, "limit was not set, is 4"),
    ],
)
def test_a_changed_setting_is_named_and_nothing_is_touched(
    tmp_path: Path, msrs: Path, changed: dict[str, Any], said: str
) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    before = folder_bytes(out)
    with pytest.raises(UserError) as error:
        make(out, msrs, **changed)
    assert str(error.value).startswith(f"{out} holds another build: {said}")
    assert str(error.value).endswith("; use the same settings, another --out, or --overwrite")
    assert folder_bytes(out) == before


def test_overwrite_replaces_and_extend_adds_variants(tmp_path: Path, msrs: Path) -> None:
    out, both = tmp_path / "out", tmp_path / "both"
    make(out, msrs, seed=9)
    make(out, msrs, overwrite=True)
    first = folder_bytes(out)
    with pytest.raises(UserError, match="is finished with --variants 1, not 2: add --extend to add variants"):
        make(out, msrs, variants=2)
    make(out, msrs, variants=2, extend=True)
    make(both, msrs, variants=2)
    after = folder_bytes(out)
    assert after == folder_bytes(both)
    assert all(after[name] == data for name, data in first.items() if name.startswith("vif-"))
    with pytest.raises(UserError, match="holds more variants than --variants 1"):
        make(out, msrs)


def test_rejects_are_recorded_and_keys_keep_their_place(tmp_path: Path, msrs: Path) -> None:
    whole = tmp_path / "whole"
    make(whole, msrs)
    keys = {s.meta.pair: s.key for i in range(3) for s in read_samples(whole / f"vif-train-{i:06d}.tar")}
    (msrs / "train/vi/00003D.png").write_bytes((msrs / "train/vi/00003D.png").read_bytes()[:900])
    save(msrs / "train/ir/00005D.png", textured(3, 80, 64, channels=1))
    out = tmp_path / "out"
    with pytest.raises(WorkIncomplete) as error:
        make(out, msrs)
    assert str(error.value).startswith("2 of 6 samples rejected, over --max-rejects 0.01: msrs/0000")
    left = {s.meta.pair: s.key for i in range(3) for s in read_samples(out / f"vif-train-{i:06d}.tar")}
    assert left == {pair: key for pair, key in keys.items() if pair not in ("00003D", "00005D")}
    rejects = [r for i in range(3) for r in json.loads((out / f"vif-train-{i:06d}.json").read_bytes())["rejects"]]
    reasons = {reject["pair"]: reject["reason"] for reject in rejects}
    assert reasons["00005D"] == "sizes differ: a 160x128, b 80x64"
    assert reasons["00003D"].startswith("00003D.png: cannot be read: ")
    assert make(out, msrs, max_rejects=0.5).samples == 4


def test_a_failure_leaves_its_shard_out_and_is_named(
    tmp_path: Path, msrs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clearfuse.synth.builder.pack

    real = clearfuse.synth.builder.pack.render
    out = tmp_path / "out"

    def fragile(spec: Any, prepared: Any, variant: int, key: str) -> Any:
        if key == "000000002":
            raise ZeroDivisionError("a bug")
        return real(spec, prepared, variant, key)

    monkeypatch.setattr(clearfuse.synth.builder.pack, "render", fragile)
    with pytest.raises(WorkIncomplete) as error:
        make(out, msrs)
    assert str(error.value).startswith("1 of 3 shards failed: vif-train-000001.tar: msrs/")
    assert "ZeroDivisionError: a bug; run the same command to go on" in str(error.value)
    assert not (out / "dataset.json").exists() and not (out / "vif-train-000001.tar").exists()
    monkeypatch.undo()
    assert make(out, msrs).resumed == 2


def test_partial_prompts_keep_what_they_do_not_ask_about(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "out", msrs, partial=1.0, n="3", shard_size=10)
    make(tmp_path / "all", msrs, n="3", shard_size=10)
    pairs = zip(*(read_samples(tmp_path / d / "vif-train-000000.tar") for d in ("out", "all")), strict=True)
    for some, every in pairs:
        assert 1 <= len(some.meta.prompt.asked) < 3
        assert np.array_equal(some.images["a"], every.images["a"])
        assert not np.array_equal(some.images["gt"], every.images["gt"])
    assert verify([str(tmp_path / "out")], replay=True).ok


def test_the_share_of_partial_prompts() -> None:
    drawn = [draw_asked(3, 0.3, generator(i)) for i in range(2000)]
    assert abs(sum(len(asked) < 3 for asked in drawn) / 2000 - 0.3) < 0.04
    assert draw_asked(1, 1.0, generator(0)) == ()


def test_ground_truth_of_the_set_is_used_whole(tmp_path: Path) -> None:
    for number in range(6):
        for folder in ("source_1", "source_2", "full_clear"):
            save(tmp_path / "set" / folder / f"{number}.png", textured(number + (30 if folder == "full_clear" else 0)))
    build("mff", out=str(tmp_path / "out"), data=[f"mfiwhu={tmp_path / 'set'}"], executor="serial", n="1")
    samples = list(read_samples(tmp_path / "out/mff-train-000000.tar"))
    assert samples
    for sample in samples:
        x, y, w, h = sample.meta.crop
        whole = textured(30 + int(sample.meta.pair))
        assert np.array_equal(sample.images["gt"], whole[y : y + h, x : x + w])
        assert sample.meta.fuser.name == "dataset"


def test_sets_merge_in_the_order_of_their_names(tmp_path: Path, msrs: Path, folder_pair: str) -> None:
    near, far = folder_pair.split(",")
    sets = [f"msrs={msrs}", f"folder={near},{far}"]
    build("vif", out=str(tmp_path / "one"), data=sets, executor="serial", n="1")
    build("vif", out=str(tmp_path / "two"), data=sets[::-1], executor="serial", n="1")
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_builtin_scenes_are_the_default(tmp_path: Path) -> None:
    report = build("mff", out=str(tmp_path / "out"), limit=2, n="1", executor="serial")
    assert report.samples == 2
    for sample in read_samples(tmp_path / "out/mff-train-000000.tar"):
        assert sample.meta.dataset == "scenes" and sample.meta.fuser.name == "dataset"


def test_an_unknown_option_of_the_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown option 'sede': did you mean 'seed'"):
        build("vif", out=str(tmp_path), sede=1)


def test_datasets_streams_the_card_and_the_index_agree(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    index = json.loads((out / "dataset.json").read_bytes())
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlicense_name: ") and index["digest"] in card
    assert "Tang, Yuan" in card and 'path: "vif-train-*.tar"' in card
    assert index["samples"] == 6 == sum(shard["samples"] for shard in index["shards"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_gives_the_same_bytes(tmp_path: Path, msrs: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra clearfuse[ray]")
    make(tmp_path / "serial", msrs)
    make(tmp_path / "ray", msrs, executor="ray", workers=2)
    assert folder_bytes(tmp_path / "ray") == folder_bytes(tmp_path / "serial")


def test_a_missing_ray_names_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'clearfuse\[ray\]'"):
        build("vif", out=str(tmp_path / "o"), executor="ray")
    assert not (tmp_path / "o").exists()
