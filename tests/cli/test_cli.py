"""The command line: what a user's mistakes say, word for word, their exit codes, and that nothing is half written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Ran, folder_bytes, run_process, save, textured

Synth = Callable[..., Ran]

MISTAKES: list[tuple[list[str], str]] = [
    (
        ["--task", "vfi"],
        "unknown task 'vfi': did you mean 'vif'? allowed: control, ditfuse, m3, mef, mff, segment, vif",
    ),
    (["--task", "vif", "--data", "msrs=no/such"], "--data msrs=no/such: folder no/such does not exist"),
    (
        ["--task", "vif", "--data", "mrss=."],
        "unknown data set 'mrss': did you mean 'msrs'? allowed: ",
    ),
    (["--task", "vif", "--data", "msrs"], "--data msrs: must be NAME=DIR, such as msrs=/data/MSRS"),
    (["--task", "vif", "--data", "scenes=x"], "--data scenes=x: 'scenes' is built in: leave --data out to use it"),
    (["--task", "vif", "--n", "0"], "--n 0: must be at least 1 and rise; recipe 'vif' allows 1 to 8"),
    (["--task", "vif", "--n", "9"], "--n 9: recipe 'vif' can combine at most 8 degradations"),
    (["--task", "mef", "--n", "7"], "--n 7: recipe 'mef' can combine at most 6 degradations"),
    (["--task", "vif", "--recipe", "mef"], "recipe 'mef' is for mef, not for vif"),
    (["--task", "vif", "--variants", "0"], "--variants 0: must be at least 1"),
    (["--task", "vif", "--shard-size", "0"], "--shard-size 0: must be at least 1"),
    (["--task", "vif", "--workers", "0"], "--workers 0: must be at least 1"),
    (["--task", "vif", "--limit", "0"], "--limit 0: must be at least 1"),
    (["--task", "vif", "--seed", "-1"], "--seed -1: must be in [0, 2^53)"),
    (["--task", "vif", "--partial", "2"], "--partial 2: must be a share in [0, 1]"),
    (["--task", "vif", "--codec", "jpg"], "unknown codec 'jpg': did you mean 'png'? allowed: jxl, png, pnm, webp"),
    (
        ["--task", "vif", "--executor", "proceses"],
        "unknown executor 'proceses': did you mean 'processes'? allowed: processes, ray, serial",
    ),
    (
        ["--task", "vif", "--fuser", "piramid"],
        "unknown fuser 'piramid': did you mean 'pyramid'? allowed: auto, dataset, defuse, paper, pyramid, swinfusion",
    ),
    (["--task", "vif", "--split", "dev"], "unknown split 'dev': allowed: test, train, val"),
    (["--task", "vif", "--set", "operators.haze.wieght=2"], "{recipe}: operators.haze: unknown key 'wieght': "),
    (["--task", "vif", "--set", "operators.hase.weight=2"], "{recipe}: operators.hase: unknown operator 'hase': "),
    (["--task", "vif", "--overwrite", "--extend"], "--overwrite and --extend exclude each other: "),
    (
        ["--task", "vif", "--fuser", "dataset"],
        "--fuser dataset: 'scenes' has no ground truth of its own for every pair",
    ),
    (["--task", "vif", "--n", "three"], "--n three: must be a number like 3, or a range like 1-3"),
    (
        ["--task", "vif", "--out", "s4://bucket/x"],
        "unknown protocol 's4': did you mean 's3'? allowed: az, file, gs, hf, memory, s3",
    ),
    (["--task", "vif", "--vairants", "2"], "No such option: --vairants"),
    ([], "Missing option '--task'"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=[" ".join(args) for args, _ in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(
    synth: Synth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    from clearfuse.synth.files.resources import resource_dir

    ran = synth("build", *args)
    assert ran.code == 2
    assert ran.error.startswith(
        "synth: error: " + message.format(recipe=resource_dir("manifests/recipes") / "vif.toml")
    )
    assert ran.err.count("error") == 1 and ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_build_verify_inspect_and_preview(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "shards"
    ran = synth("build", "--task", "vif", "--n", "3", "--data", f"msrs={msrs}", "--out", out, "--executor", "serial")
    assert (ran.code, ran.out) == (0, f"built 6 samples in 1 shard in {out}\n")
    assert "pairs: 6 of msrs in train (2 in test, 1 other files ignored)" in ran.err
    assert "ground truth: pyramid" in ran.err and "depth: small" in ran.err
    ran = synth("verify", out, "--replay", "--workers", "1")
    assert (ran.code, ran.out) == (0, "ok: 6 samples, 6 replayed\n")
    report = json.loads(synth("inspect", out, "--json").out)
    assert report["samples"] == 6 and report["n"] == {"3": 6}
    assert sum(report["operators"].values()) == 18
    assert "6 samples in 1 shard, 6 different prompts" in synth("inspect", out).out
    sheet = tmp_path / "sheet.png"
    assert synth("preview", out, "--samples", "2", "--out", sheet).code == 0
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 160
    page = sheet.with_suffix(".html").read_text()
    assert page.count("data:image/webp;base64,") == 10 and "http" not in page


@pytest.mark.slow
def test_json_is_one_object(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    args = ("--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path / "o", "--executor", "serial", "--json")
    plan = json.loads(synth("build", *args, "--dry-run").out)
    assert plan["samples"] == 6 and plan["settings"]["seed"] == 0
    assert not (tmp_path / "o").exists()
    done = json.loads(synth("build", *args).out)
    assert done["samples"] == 6 and done["digest"] == plan["digest"]
    verified = json.loads(synth("verify", tmp_path / "o", "--json", "--workers", "1").out)
    assert verified == {"ok": True, "samples": 6, "replayed": 0, "problems": []}


@pytest.mark.slow
def test_rejects_over_the_limit_exit_1_and_the_rest_is_whole(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    bad = msrs / "train/vi/00002D.png"
    bad.write_bytes(bad.read_bytes()[:500])
    args = ("build", "--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path / "o", "--executor", "serial")
    ran = synth(*args)
    assert ran.code == 1
    expected = (
        "synth: error: 1 of 6 samples rejected, over --max-rejects 0.01: msrs/00002D: 00002D.png: cannot be read: "
    )
    assert ran.error.startswith(expected)
    assert synth("verify", tmp_path / "o", "--workers", "1").code == 0
    assert synth(*args, "--max-rejects", "0.2").code == 0


@pytest.mark.slow
def test_a_changed_setting_on_resume_is_named(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    args = ("build", "--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path / "o", "--executor", "serial")
    assert synth(*args).code == 0
    before = folder_bytes(tmp_path / "o")
    ran = synth(*args, "--seed", "3")
    assert (ran.code, ran.error) == (
        2,
        f"synth: error: {tmp_path / 'o'} holds another build: seed was 0, is 3; "
        "use the same settings, another --out, or --overwrite",
    )
    assert folder_bytes(tmp_path / "o") == before


def test_an_output_that_cannot_be_written(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = synth("build", "--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path / "file/below")
    assert (ran.code, ran.error) == (
        2,
        f"synth: error: --out {tmp_path / 'file/below'}: cannot be written: Not a directory",
    )


def test_somebody_elses_readme_is_not_written_over(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    ran = synth("build", "--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path)
    assert ran.code == 2
    assert ran.error.endswith("holds a README.md that is no build's: choose an empty folder for --out")
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.fixture
def built(synth: Synth, tmp_path: Path, msrs: Path) -> Path:
    """A small build to damage."""
    out = tmp_path / "built"
    args = ("--n", "2", "--shard-size", "3", "--executor", "serial", "--codec", "png")
    assert synth("build", "--task", "vif", "--data", f"msrs={msrs}", "--out", out, *args).code == 0
    return out


def damage_truncated(out: Path) -> str:
    path = out / "vif-train-000001.tar"
    path.write_bytes(path.read_bytes()[:20_000])
    return "vif-train-000001.tar: 20000 bytes, its receipt says "


def damage_flipped(out: Path) -> str:
    path = out / "vif-train-000000.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    return "vif-train-000000.tar: its bytes are not those of its receipt (sha256 differs)"


def damage_missing(out: Path) -> str:
    (out / "vif-train-000001.tar").unlink()
    return f"{out / 'vif-train-000001.tar'}: missing, though dataset.json lists it"


def damage_no_receipt(out: Path) -> str:
    (out / "vif-train-000001.json").unlink()
    return "vif-train-000001.tar: no receipt beside it: the shard was not finished"


def damage_unfinished(out: Path) -> str:
    (out / "dataset.json").unlink()
    return f"{out}: no dataset.json: the build is not finished; run its command again"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [damage_truncated, damage_flipped, damage_missing, damage_no_receipt, damage_unfinished]
)
def test_verify_names_the_damage(synth: Synth, built: Path, damage: Callable[[Path], str]) -> None:
    said = damage(built)
    ran = synth("verify", built, "--workers", "1")
    assert ran.code == 1
    assert any(line.startswith(f"problem: {said}") for line in ran.out.splitlines()), ran.out


def test_replay_finds_a_changed_picture(synth: Synth, built: Path) -> None:
    from clearfuse.synth.shards.tar import read_shard, write_shard

    path = built / "vif-train-000000.tar"
    content = list(read_shard(path))
    key, members = content[0]
    members["a.png"] = members["clean_a.png"]
    write_shard(path, content)
    ran = synth("verify", path, "--replay")
    assert ran.code == 1
    assert f"sample {key}: a differs from its replay in" in ran.out


def test_verify_and_inspect_refuse_what_is_not_there(synth: Synth, tmp_path: Path) -> None:
    for command in ("verify", "inspect"):
        ran = synth(command, tmp_path)
        assert (ran.code, ran.error) == (2, f"synth: error: {tmp_path}: no shards in this folder")
        ran = synth(command, tmp_path / "x.tar")
        assert (ran.code, ran.error) == (2, f"synth: error: {tmp_path / 'x.tar'}: no such file or folder")
    (tmp_path / "x.tar").write_bytes(b"not a tar")
    ran = synth("inspect", tmp_path / "x.tar")
    assert ran.code == 2 and "x.tar: not a whole tar" in ran.error and ran.error.endswith("see synth verify")


def test_degrade_writes_what_python_makes(synth: Synth, tmp_path: Path) -> None:
    from clearfuse.synth.samples.chain import degrade
    from clearfuse.synth.seeds import seed_of

    image = textured(1)
    args = (
        save(tmp_path / "x.png", image),
        "--op",
        "jpeg,gaussian_noise",
        "--severity",
        "0.5",
        "--out",
        tmp_path / "o",
    )
    assert synth("degrade", *args, "--seed", "4").code == 0
    with Image.open(tmp_path / "o/x.png") as file:
        written = np.asarray(file)
    assert np.array_equal(written, degrade(image, ["gaussian_noise", "jpeg"], severity=0.5, seed=seed_of(4, "x")))


DEGRADE_MISTAKES: list[tuple[list[str], str]] = [
    (["{x}", "--op", "hase"], "unknown operator 'hase': did you mean 'haze'? allowed: "),
    (["{x}", "--op", "haze", "--severity", "2"], "--severity 2: must be in [0, 1]"),
    (["no.png", "--op", "haze"], "no.png: no such file"),
    (["{x}", "--op", "ir_stripes"], "ir_stripes does not act on visible images"),
    (["{x}", "{x}", "--op", "jpeg"], "two images are named x: their results would overwrite each other"),
    (["{x}", "--op", "jpeg", "--modality", "thermal"], "unknown modality 'thermal': "),
    (["{x}", "--op", "haze", "--depth", "laser"], "unknown depth 'laser': "),
]


@pytest.mark.parametrize(("args", "message"), DEGRADE_MISTAKES)
def test_degrade_refuses_in_one_line(synth: Synth, tmp_path: Path, args: list[str], message: str) -> None:
    x = save(tmp_path / "x.png", textured(1))
    ran = synth("degrade", *(arg.format(x=x) for arg in args), "--out", tmp_path / "o")
    assert ran.code == 2 and ran.error.startswith(f"synth: error: {message}")
    assert not (tmp_path / "o").exists()


def test_degrade_goes_on_past_a_bad_image_and_says_so(synth: Synth, tmp_path: Path) -> None:
    good, bad = save(tmp_path / "good.png", textured(1)), tmp_path / "bad.png"
    bad.write_bytes(b"no")
    ran = synth("degrade", bad, good, "--op", "haze", "--severity", "1", "--out", tmp_path / "o")
    assert (ran.code, ran.error) == (1, "synth: error: 1 of 2 images could not be used: bad.png: is not an image")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["good.png"]


@pytest.mark.parametrize("kind", ["operators", "datasets", "fusers", "depths", "codecs", "prompts", "recipes"])
def test_list_says_a_line_each(synth: Synth, kind: str) -> None:
    entries: dict[str, Any] = json.loads(synth("list", kind, "--json").out)
    text = synth("list", kind).out
    assert len(text.splitlines()) == len(entries) >= 2
    assert all(value and "\n" not in value for value in entries.values())


def test_list_refuses_an_unknown_kind(synth: Synth) -> None:
    ran = synth("list", "operator")
    assert (ran.code, ran.error.split("? ")[0]) == (
        2,
        "synth: error: unknown kind 'operator': did you mean 'operators'",
    )


@pytest.mark.slow
def test_preview_draws_operators_at_five_severities(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "p.png"
    ran = synth("preview", "--task", "vif", "--data", f"msrs={msrs}", "--op", "jpeg,ir_stripes", "--out", out)
    assert ran.code == 0
    assert out.with_suffix(".html").read_text().count("<figure>") == 3 * 6
    assert synth("preview").error == "synth: error: preview needs --task, such as vif, or folders of shards"
    ran = synth("preview", "--task", "vif", "--out", tmp_path / "p.gif")
    assert (ran.code, ran.error) == (2, f"synth: error: --out {tmp_path / 'p.gif'}: must end in .png")


@pytest.mark.slow
def test_preview_draws_samples_of_a_build_not_yet_made(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "p"
    assert synth("preview", "--task", "vif", "--data", f"msrs={msrs}", "--samples", "2", "--out", out).code == 0
    assert sorted(path.name for path in tmp_path.glob("p*")) == ["p.html", "p.png"]


def test_help_imports_nothing_heavy() -> None:
    heavy = "('numpy', 'cv2', 'torch', 'PIL')"
    code = (
        f"import sys, clearfuse.synth.cli.app, clearfuse.train.cli.app\nprint([m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_building_needs_no_torch() -> None:
    code = "import sys, clearfuse.synth.builder.run, clearfuse.synth.review.preview; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.slow
def test_a_process_of_its_own_has_the_same_exit_codes(tmp_path: Path) -> None:
    ran = run_process("build", "--task", "vif", "--n", "9", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr == "synth: error: --n 9: recipe 'vif' can combine at most 8 degradations\n"
    assert run_process("--help").returncode == 0


@pytest.mark.slow
def test_debug_shows_the_traceback() -> None:
    ran = run_process("verify", "no/such", "--debug")
    assert ran.returncode == 1 and "Traceback" in ran.stderr


def test_a_prompt_file_with_a_typo_stops_a_build_before_work(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    import shutil

    from clearfuse.synth.files.resources import resource_dir

    mine = shutil.copytree(resource_dir("prompts"), tmp_path / "mine")
    args = ("build", "--task", "vif", "--data", f"msrs={msrs}", "--prompts", mine, "--executor", "serial")
    assert synth(*args, "--out", tmp_path / "good").code == 0
    (mine / "haze.toml").write_text((mine / "haze.toml").read_text().replace("{image}", "{imgae}", 1))
    ran = synth(*args, "--out", tmp_path / "bad")
    assert ran.code == 2 and ran.error.startswith(f"synth: error: {mine / 'haze.toml'}: ")
    assert "imgae" in ran.error and "image" in ran.error
    assert not (tmp_path / "bad").exists()
    ran = synth(*args[:5], "--prompts", tmp_path / "no", "--out", tmp_path / "bad")
    assert (ran.code, ran.error) == (2, f"synth: error: --prompts {tmp_path / 'no'}: folder does not exist")


@pytest.mark.slow
def test_own_prompts_are_used_and_are_part_of_the_build(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    import shutil

    from clearfuse.synth.files.resources import resource_dir

    mine = shutil.copytree(resource_dir("prompts"), tmp_path / "mine")
    (mine / "jpeg.toml").write_text(
        'schema = 1\nnames = ["blocks"]\nstrengths = ["few", "some", "many"]\n'
        '[[phrase]]\nid = "jpeg-01"\nkind = "terse"\ntext = "blocks be gone"\nclause = "end the blocks"\n'
    )
    args = ["build", "--task", "vif", "--data", f"msrs={msrs}", "--out", tmp_path / "o", "--executor", "serial"]
    args += ["--n", "1"] + [f for op in ("haze", "rain", "snow") for f in ("--set", f"operators.{op}.weight=0")]
    args += [f for op in OTHERS for f in ("--set", f"operators.{op}.weight=0")]
    assert synth(*args, "--prompts", mine).code == 0
    report = json.loads(synth("inspect", tmp_path / "o", "--json", "--examples", "6").out)
    assert report["operators"] == {"jpeg": 6}
    assert all("blocks" in one["prompt"].lower() for one in report["examples"])
    ran = synth(*args)
    assert ran.code == 2 and "holds another build: prompts was " in ran.error


OTHERS = ["motion_blur", "gaussian_blur", "low_exposure", "ir_stripes", "low_contrast", "gaussian_noise", "downsample"]
