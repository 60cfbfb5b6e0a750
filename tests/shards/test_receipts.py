"""What a build says of all its shards is read and written an entry at a time, in the bytes of one that is held."""

from __future__ import annotations

import io
import json
import math
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.files.jsonstream import Stream, pieces, read_but, read_items, write_json
from clearfuse.synth.shards.receipts import Receipts, ShardNames, listed_shards, read_index, read_receipt
from clearfuse.synth.shards.records import Receipt, Reject
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


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_an_item_at_a_time(indent: int | None) -> None:
    data = {"a": -1.5e-3, "shards": [1, 12.5e7, 'x\\"]é', {"b": [None]}, []], "z": {"shards": [1]}, "n": 120}
    text = json.dumps(data, indent=indent).encode()
    assert list(read_items(io.BytesIO(text), "shards")) == data["shards"]
    assert read_but(io.BytesIO(text), "shards") == data | {"shards": []}
    assert read_but(io.BytesIO(b' {"shards": 3} '), "shards") == {"shards": 3}


def test_what_is_no_json_is_refused() -> None:
    whole = b'{"a": 1, "shards": [{"b": "c"}, 2], "d": [3]}'
    bad = (b"", b"{]", whole + b"x", b'{"a" 1}', b'{"a": 1,}', b"{1: 2}", b'{"shards": [1 2]}', b"nonsense", b"[NaN]")
    for text in (*bad, *(whole[:cut] for cut in range(0, len(whole), 3))):
        with pytest.raises(ValueError) as error:
            read_but(io.BytesIO(text), "shards")
        assert "\n" not in str(error.value)


def test_names_of_shards_are_a_set() -> None:
    drawn = random.Random(0)
    names = {f"vif-{drawn.choice(['train', 'val'])}-{drawn.randrange(300):06d}.tar" for _ in range(99)}
    kept = ShardNames(names)
    assert len(kept) == len(names) and list(kept) == sorted(names) and all(name in kept for name in names)
    assert not kept.add("other.tar") and "other.tar" not in kept and "mff-train-000001.tar" not in kept
    assert "vif-test-000001.tar" not in kept and "vif-train-999999.tar" not in kept


DIGEST = "d" * 64


def receipt(number: int, split: str = "train") -> Receipt:
    """A receipt of a shard that is small."""
    reject = {"index": 0, "dataset": "d", "pair": "p", "variant": 0, "reason": "small"}
    return Receipt(
        schema=1,
        shard=f"vif-{split}-{number:06d}.tar",
        sha256=f"{number:064x}",
        bytes=7,
        samples=2,
        offsets={"000000000": 0, "000000001": 4},
        rejects=(Reject(**reject),) * (number % 3 == 0),
        digest=DIGEST,
        settings={},
    )


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
    count = 10_000
    tracemalloc.start()
    try:
        receipts = Receipts()
        for number in range(count):
            receipts.add(receipt(number))
        data = {"schema": 1, "variants": 1, "shards": Stream(receipts), "digest": DIGEST, "settings": {}}
        write_json(tmp_path / "dataset.json", data)
        assert read_index(tmp_path / "dataset.json").digest == DIGEST
        total = sum(shard.bytes for shard in listed_shards(tmp_path / "dataset.json"))
        assert tracemalloc.get_traced_memory()[1] < 900_000  # held, it takes 7.5 MB
    finally:
        tracemalloc.stop()
    assert total == 7 * count
    text = json.dumps({**data, "shards": list(receipts)}, ensure_ascii=False, indent=1) + "\n"
    assert (tmp_path / "dataset.json").read_text() == text


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    listed = {"shard": "x.tar", "sha256": "0" * 64, "bytes": 7, "samples": 2}
    whole = {"schema": 1, "variants": 1, "shards": [listed], "digest": DIGEST, "settings": {}, "new": 1}
    path.write_text(json.dumps(whole))
    assert read_index(path).variants == 1 and next(listed_shards(path)).bytes == 7
    for wrong, said in (
        ({"shards": 3}, "shards = 3: must be a list; remove it and run the build again"),
        ({"shards": {"item": [listed]}}, "shards = {}: must be a list; remove it and run the build again"),
        ({"digest": 3}, "digest = 3: must be a text; remove it and run the build again"),
        ({"variants": -1}, "variants = -1: must be in [0, 2^53); remove it and run the build again"),
        ({"schema": True}, "schema = True: must be a whole number; remove it and run the build again"),
        ({"schema": 9, "digest": None}, "schema 9 is newer than this version reads (1); upgrade clearfuse"),
    ):
        path.write_text(json.dumps(whole | wrong))
        with pytest.raises(UserError) as error:
            read_index(path)
        assert str(error.value) == f"{path}: {said}"
    for entry, said in (
        ({"shard": "x"}, r"shards.0: shard = 'x': must be a text that matches ^[^/]+\.tar$"),
        (listed | {"bytes": -1}, "shards.0: bytes = -1: must be in [0, 2^53)"),
        (listed | {"bytes": 1e9}, "shards.0: bytes = 1000000000.0: must be a whole number"),
        (3, "shards.0: must be a table, not 3"),
    ):
        path.write_text(json.dumps(whole | {"shards": [entry]}))
        with pytest.raises(UserError) as error:
            list(listed_shards(path))
        assert str(error.value) == f"{path}: {said}; remove it and run the build again"
    for text in (b"\xff\xfe", b'{"schema": 1', b"[1] x"):
        path.write_bytes(text)
        with pytest.raises(UserError, match=r"cannot be read: .*; remove it and run the build again") as error:
            read_index(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bytes": -5}, "bytes = -5: must be in [0, 2^53)"),
        ({"samples": 1 << 60}, "samples = 1152921504606846976: must be in [0, 2^53)"),
        ({"offsets": {"0": "x"}}, "offsets.0 = 'x': must be a whole number"),
        ({"offsets": []}, "offsets = []: must be a table"),
        ({"shard": "../x.tar"}, "shard = '../x.tar': must be a text that matches ^[^/]+\\.tar$"),
        ({"rejects": [{"reason": 3}]}, "rejects.0.index is missing"),
        ({"settings": {"x": [1, {"y": math.inf}]}}, "settings: x: y: must be a finite number, not inf"),
        ({"digest": None}, "digest = None: must be a text"),
    ],
)
def test_a_receipt_of_wrong_values_is_one_line(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    path = tmp_path / "vif-train-000000.json"
    whole = receipt(0).model_dump(by_alias=True)
    path.write_text(json.dumps(whole | {"new": {"later": 1}}))
    assert read_receipt(path) == receipt(0)
    path.write_text(json.dumps(whole | wrong).replace("Infinity", "1e999"))
    with pytest.raises(UserError) as error:
        read_receipt(path)
    assert str(error.value) == f"{path}: {said}; remove it and its tar to render the shard again"


def test_a_receipt_that_is_newer_or_nested_deeply_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "vif-train-000000.json"
    path.write_text(json.dumps(receipt(0).model_dump(by_alias=True) | {"schema": 9, "bytes": "other"}))
    with pytest.raises(UserError) as error:
        read_receipt(path)
    assert str(error.value) == f"{path}: schema 9 is newer than this version reads (1); upgrade clearfuse"
    path.write_bytes(b'{"settings": ' + b"[" * 100_000)
    with pytest.raises(UserError, match="recursion limit exceeded") as error:
        read_receipt(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_objects_of_texts_and_numbers_are_written_as_an_indent_writes_them() -> None:
    flat = {"a, b": 'x": {"é,\n', "n": -1.5e-9, "none": None, "yes": True, "big": 1 << 60}
    items = [flat, {}, {"deep": [1, {"a": 2}]}, {"empty": {}}, "text", flat]
    for streamed, held in ((Stream(items), items), (Stream([{"in": Stream(items)}]), [{"in": items}])):
        assert "".join(pieces({"of": streamed})) == json.dumps({"of": held}, ensure_ascii=False, indent=1)
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        list(pieces(Stream([{"a": float("nan")}])))
