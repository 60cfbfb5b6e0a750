"""The lower part of a benchmark's page, as ``bench build --write-digests`` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clearfuse.bench.page import BenchmarkFile, ShardDigest, load_page
from clearfuse.synth.files.folders import difference
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import UserError

LINE = "# Below this line: hashes, written by clearfuse bench build --write-digests."


def write_digests(
    page: BenchmarkFile,
    versions: Mapping[str, str],
    files: Mapping[str, Mapping[str, Mapping[str, str]]],
    shards: Mapping[str, ShardDigest],
) -> BenchmarkFile:
    """Lay these over the page's hashes, write the page by rename, and give it back as it is now.

    What stands above ``LINE`` stays as it is. A set's files are all replaced, shards one by one; what is of no set or
    part of the page goes. Raises UserError where the page cannot be written.
    """
    names = [name for name in page.shards if name not in shards]
    if names and (changed := list(difference(page.versions, dict(versions)))):
        raise UserError(
            f"{page.path}: {len(names)} of its shards, such as {names[0]}, were hashed with other versions "
            f"({changed[0]}): give all its sets at once, or remove their hashes"
        )
    kept = {entry.key for entry in page.sets}
    all_files = {key: of for key, of in {**page.files, **files}.items() if key in kept}
    probe = page.model_copy(update={"files": all_files})
    probe._name, probe._path = page.name, page.path
    names = [name for entry in page.sets for part in probe.parts(entry) for name in part.shards]
    all_shards = {**page.shards, **shards}
    text = page.path.read_text().partition(LINE)[0].rstrip("\n")
    lines = [text, "", LINE, "[versions]", *(f"{_text(name)} = {_text(of)}" for name, of in versions.items())]
    for key, pairs in all_files.items():
        lines += ["", f"[files.{_text(key)}]"]
        lines += [f"{_text(pair)} = {_inline(hashes)}" for pair, hashes in pairs.items()]
    there = {name: all_shards[name] for name in names if name in all_shards}
    lines += ["", "[shards]"] if there else []
    lines += [f"{_text(name)} = {_inline(one.model_dump())}" for name, one in there.items()]
    try:
        with landing(page.path) as file:
            file.write("\n".join([*lines, ""]).encode())
    except OSError as error:
        raise UserError(f"{page.path}: cannot be written: {error.strerror}; copy it, and name the copy") from None
    return load_page(str(page.path))


def _text(text: str) -> str:
    """A TOML string: JSON's is one."""
    return json.dumps(text, ensure_ascii=False)


def _inline(table: Mapping[str, object]) -> str:
    """An inline table of texts and numbers."""
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + " }"
