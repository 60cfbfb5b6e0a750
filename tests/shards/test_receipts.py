"""What a build says of all its shards is read and written an entry at a time, in the bytes of one that is held."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.files import jsonstream
from clearfuse.synth.files.jsonstream import Stream, pieces, read_object, write_json
from clearfuse.synth.shards.receipts import Receipts, ShardNames, read_index
from clearfuse.synth.types import UserError


def held(data: Any) -> Any:
    """The same with lists for streams."""
    if isinstance(data, Stream):
        return [held(item) for item in data.items]
    return {name: held(value) for name, value in data.items()} if isinstance(data, dict) else data


@pytest.mark.parametrize(
    "data",
    [
        {"a": Stream([]), "b": {}, "c": [], "d": [[], {"x": [1.5, None, True]}]},
        {"a": 1, "s": Stream([1, {"é": "line\nbreak"}, [], {"in": Stream([{"@id": "x"}]), "z": [1, [2]]}]), "e": ""},
        Stream([Stream([]), {"only": Stream([0])}]),
        {"none": {}},
    ],
)
def test_a_streamed_list_is_written_as_a_held_one(data: Any) -> None:
    assert "".join(pieces(data)) == json.dumps(held(data), ensure_ascii=False, indent=1)


@pytest.mark.parametrize("first", [1, 2, 3, 1 << 16])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_an_item_at_a_time(monkeypatch: pytest.MonkeyPatch, first: int, indent: int | None) -> None:
    monkeypatch.setattr(jsonstream, "FIRST", first)
    data = {"a": -1.5e-3, "shards": [1, 12.5e7, 'x\\"]é', {"b": [None]}, []], "z": {"shards": [1]}, "n": 120}
    items: list[Any] = []
    found, listed = read_object(io.StringIO(json.dumps(data, indent=indent)), "shards", items.append)
    assert listed and items == data.pop("shards") and found == data
    assert read_object(io.StringIO(' {"shards": 3} '), "shards", items.append) == ({"shards": 3}, False)


def test_what_is_no_object_is_refused() -> None:
    whole = '{"a": 1, "shards": [{"b": "c"}, 2], "d": [3]}'
    for bad in ("", "[]", "{]", whole + "x", '{"a" 1}', '{"a": 1,}', "{1: 2}", '{"shards": [1 2]}', "nonsense"):
        with pytest.raises(ValueError):
            read_object(io.StringIO(bad), "shards", lambda item: None)
    for cut in range(0, len(whole), 3):
        with pytest.raises(ValueError):
            read_object(io.StringIO(whole[:cut]), "shards", lambda item: None)


def test_names_of_shards_are_a_set() -> None:
    drawn = random.Random(0)
    names = {f"vif-{drawn.choice(['train', 'val'])}-{drawn.randrange(300):06d}.tar" for _ in range(99)}
    kept = ShardNames(names)
    assert len(kept) == len(names) and list(kept) == sorted(names) and all(name in kept for name in names)
    assert not kept.add("other.tar") and "other.tar" not in kept and "mff-train-000001.tar" not in kept
    assert "vif-test-000001.tar" not in kept and "vif-train-999999.tar" not in kept


def receipt(number: int, split: str = "train") -> dict[str, Any]:
    """As much of a receipt as the last files of a build say."""
    name = f"vif-{split}-{number:06d}.tar"
    rejects = [{"reason": "small"}] * (number % 3 == 0)
    return {"shard": name, "sha256": f"{number:064x}", "bytes": 7, "samples": 2, "rejects": rejects}


def test_receipts_are_summed_and_kept_in_order() -> None:
    receipts = Receipts()
    assert list(receipts) == [] and len(receipts) == 0
    for number in range(4):
        receipts.add(receipt(number, "val" if number == 3 else "train"))
    assert (
        [r["shard"][-10:] for r in receipts]
        == [f"00000{i}.tar" for i in range(4)]
        == [r["shard"][-10:] for r in [*receipts.of_split("train"), *receipts.of_split("val")]]
    )
    assert (receipts.bytes, dict(receipts.samples), dict(receipts.rejects)) == (
        28,
        {"train": 6, "val": 2},
        {"small": 2},
    )


@pytest.mark.slow
def test_the_memory_of_an_index_does_not_grow_with_its_shards(tmp_path: Path) -> None:
    count = 2_000
    tracemalloc.start()
    try:
        receipts = Receipts()
        for number in range(count):
            receipts.add(receipt(number))
        data = {"schema": 1, "variants": 1, "shards": Stream(receipts), "digest": "d", "settings": {}}
        write_json(tmp_path / "dataset.json", data)
        sizes: list[int] = []
        read_index(tmp_path / "dataset.json", lambda shard: sizes.append(shard["bytes"]))
        assert tracemalloc.get_traced_memory()[1] < 600_000  # held, it takes 1.5 MB
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 7 * count
    text = json.dumps({**data, "shards": list(receipts)}, ensure_ascii=False, indent=1) + "\n"
    assert (tmp_path / "dataset.json").read_text() == text


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    whole = {"schema": 1, "variants": 1, "shards": [receipt(0)], "digest": "d", "settings": {}}
    for wrong, said in (
        ({"shards": 3}, "no shards in it"),
        ({"shards": [{"shard": "x"}]}, r"no shards\.sha256 in it"),
        ({"digest": 3}, "no digest in it"),
        ({"schema": 9}, "schema 9 is newer"),
    ):
        path.write_text(json.dumps(whole | wrong))
        with pytest.raises(UserError, match=said):
            read_index(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot be read: .*; remove it and run the build again"):
        read_index(path)
