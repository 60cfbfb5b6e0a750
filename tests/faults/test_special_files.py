"""Readers of small files, given what is no file to read: a pipe, a device without an end, a file of gigabytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearfuse.bench.submission import read_submission
from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.storage import MOST_TEXT, UnfitFile, read_bytes
from clearfuse.synth.prompts.pages import page_bytes
from clearfuse.synth.types import UserError
from clearfuse.train.cli.downstream import read_keys
from clearfuse.train.designs.folder import read_folder
from clearfuse.train.evaluation.stress.agree import read_scores
from clearfuse.train.runs.record import read_record
from clearfuse.train.text.t5 import EncoderConfig
from clearfuse.train.weights.source import read_config

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "submission": ("x.json", read_submission),
    "TOML": ("x.toml", read_toml),
    "prompts": ("haze.toml", page_bytes),
    "keys": ("keys.txt", lambda path: read_keys(str(path))),
    "scores": ("scores.csv", lambda path: read_scores(str(path))),
    "scores by line": ("scores.jsonl", lambda path: read_scores(str(path))),
    "design": ("pipeline.json", lambda path: read_folder(path.parent)),
    "run": ("run.json", lambda path: read_record(path.parent)),
    "network": ("config.json", lambda path: read_config(EncoderConfig, path.parent, "--text x")),
}


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_TEXT + 1)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "is no regular file": os.mkfifo,
    "at most": sparse,
    "Is a directory": Path.mkdir,
}


@pytest.mark.parametrize("said", SPECIAL)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_to_read_is_named_at_once(tmp_path: Path, name: str, said: str) -> None:
    file, read = READERS[name]
    SPECIAL[said](tmp_path / file)
    with pytest.raises(UserError, match=rf"{file}: cannot be read: .*{said}"):
        read(tmp_path / file)


def test_a_link_to_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is no regular file"):
        read_submission(tmp_path / "x.json")
    with pytest.raises(UnfitFile):
        read_bytes(str(tmp_path / "x.json"))
