"""Tensors out of TorchScript archives: those that torch writes, and what is refused, in one line."""

from __future__ import annotations

import io
import os
import pickle
import random
import time
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from jits import cosmos
from torch import nn

from clearfuse.synth.types import UserError
from clearfuse.train.weights import torchscript
from clearfuse.train.weights.torchscript import read_archive


class Net(nn.Module):
    """Attributes of all kinds that a script keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.twin = self.layers[0]
        self.width, self.rate, self.sizes, self.names = 4, 0.5, [1, 2], {"a": 1}
        self.register_buffer("view", torch.arange(12.0).view(3, 4).T[1:, ::2])
        self.register_buffer("none", torch.zeros(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.width + self.view.sum() + self.sizes[0] + self.rate + self.names["a"]


def scripted(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.script(module).save(str(path))
    return path


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


def test_a_scripted_module_s_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Net()
    path = scripted(tmp_path / "net.pt", module)
    monkeypatch.setattr("torch.jit.load", None)
    monkeypatch.setattr("pickle.Unpickler", None)
    same(read_archive(path), module.state_dict())


def test_a_traced_module_s_tensors_without_its_code(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for name, module in zip(("encoder", "decoder"), cosmos(tmp_path, dtype=dtype), strict=True):
            path = tmp_path / f"{name}.jit"
            same(read_archive(path), module.state_dict())
            with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
                for info in whole.infolist():
                    if "/data" in info.filename:
                        bare.writestr(info.filename, whole.read(info))
            same(read_archive(tmp_path / "bare.zip"), module.state_dict())


def plain(value: object) -> bytes:
    """The operations that leave a value on the stack; bytes are operations already."""
    return value if isinstance(value, bytes) else pickle.dumps(value, 2)[2:-1]


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 6) -> bytes:
    return (
        b"(" + plain("storage") + b"ctorch\n" + kind.encode() + b"\n" + plain(key) + plain("cpu") + plain(count) + b"tQ"
    )


def tensor(
    offset: object = 0, sizes: object = (2, 3), strides: object = (3, 1), stored: bytes | None = None, end: bytes = b""
) -> bytes:
    hooks = b"ccollections\nOrderedDict\n)R"
    parts = (storage() if stored is None else stored) + b"".join(map(plain, (offset, sizes, strides, False))) + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + end + b"tR"


def module(value: bytes, name: bytes = b"__torch__\nM") -> bytes:
    return b"c" + name + b"\n)\x81}(" + plain("weight") + value + b"ub"


def archive(path: Path, program: bytes, **entries: bytes) -> Path:
    held = {"data/0": bytes(24)} | {name.replace("_", "/"): data for name, data in entries.items()}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("root/data.pkl", b"\x80\x02" + program + b".")
        for name, data in held.items():
            file.writestr(f"root/{name}", data)
    return path


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


DOUBLED = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(10, 60))
"""A pair of twice the same, fifty deep: to write it out would take for ever."""

HOSTILE = {
    "a call": (plain(Code()), "more than tensors: posix system"),
    "a call inside": (module(plain(Code())), "more than tensors: posix system"),
    "a class of its own": (module(tensor(), b"os\npopen"), "more than tensors: os popen"),
    "a call of eval": (b"c__builtin__\neval\n(" + plain("1") + b"tR", "more than tensors: __builtin__ eval"),
    "a call of what is no name": (plain(1) + b")R", "more than tensors: int"),
    "a name from the stack": (plain("os") + plain("system") + b"\x93)R", "no archive of tensors needs: STACK_GLOBAL"),
    "an instance": (b"(ios\nsystem\n", "no archive of tensors needs: INST"),
    "an extension": (b"\x82\x01", "no archive of tensors needs: EXT1"),
    "state of a tensor": (module(tensor() + b"}b"), "the state of something that is no module"),
    "items of a module": (module(tensor()) + plain("a") + plain(1) + b"s", "neither a list nor a dict"),
    "no module": (plain((1,)), "it holds no module"),
    "huge": (module(tensor(0, (1 << 40,), (1,))), "not whole numbers from 0 on"),
    "a claim beyond the file": (module(tensor(stored=storage(count=1 << 40))), "for which it has 24 bytes"),
    "a storage that is not there": (module(tensor(stored=storage(key="1"))), "for which it has None bytes"),
    "a storage of objects": (module(tensor(stored=storage("ObjectStorage"))), "a storage of the kind torch Object"),
    "a storage elsewhere": (module(tensor(stored=b"(" + plain("file") + b"tQ")), "something that is no storage"),
    "a negative size": (module(tensor(0, (-2, -3), (3, 1))), "not whole numbers from 0 on"),
    "a negative stride": (module(tensor(5, (2, 3), (-3, 1))), "not whole numbers from 0 on"),
    "a size of another kind": (module(tensor(0, (2, 3.0), (3, 1))), "not whole numbers from 0 on"),
    "an offset beyond": (module(tensor(1)), "beyond its storage of 6 numbers"),
    "a stride beyond": (module(tensor(0, (2, 3), (4, 1))), "beyond its storage of 6 numbers"),
    "a stride of none": (module(tensor(0, (1 << 20,), (0,))), "beyond its storage of 6 numbers"),
    "a size too few": (module(tensor(0, (6,), ())), "without a stride for each of its sizes"),
    "a conjugate": (module(tensor(end=plain({"conj": True}))), "more than tensors: torch._utils _rebuild_tensor_v2"),
    "an empty stack": (b"b", "pop from empty list"),
    "an item that was not kept": (b"h\x07", "7"),
    "no mark": (b"t", "pop from empty list"),
    "a ring": (b"c__torch__\nM\n)\x81q\x05}(" + plain("a") + b"h\x05ub", "more than 10000 modules"),
    "doubled and doubled": (b")" + DOUBLED, "it holds no module"),
    "sizes doubled and doubled": (module(tensor(sizes=b")" + DOUBLED)), "not whole numbers from 0 on"),
    "an operation that is none": (b"\xff", "opcode"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_more_than_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    program, said = HOSTILE[what]
    path = archive(tmp_path / "net.jit", program)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        read_archive(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert str(error.value).startswith(f"{path}: is no TorchScript archive") and said in str(error.value)
    assert not (tmp_path / "ran").exists() and time.monotonic() - start < 5


def test_the_zip_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, good = tmp_path / "net.jit", module(tensor())

    def said() -> str:
        with pytest.raises(UserError) as error:
            read_archive(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert read_archive(archive(path, good))["weight"].tolist() == [[0.0] * 3] * 2
    assert list(read_archive(archive(path, good, byteorder=b"little"))) == ["weight"]
    archive(path, good, byteorder=b"big")
    assert "its byte order is 'big', this machine's 'little'" in said()
    whole = archive(path, good).read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "is no TorchScript archive" in said()
    path.write_bytes(whole.replace(bytes(24), bytes(23) + b"\1", 1))
    assert "Bad CRC-32" in said()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("root/data.pkl", good)
    assert "root/data.pkl is compressed" in said()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", good)
    assert "must hold one ROOT/data.pkl" in said()
    path.unlink()
    assert "No such file" in said()
    path.mkdir()
    assert "Is a directory" in said()
    path.rmdir()
    archive(path, good)
    monkeypatch.setattr(torchscript, "LONGEST", 8)
    assert "its pickle has more than" in said()
    monkeypatch.setattr(torchscript, "LARGEST", 8)
    assert "it unpacks to more than" in said()


@pytest.mark.slow
def test_mutated_ones_are_read_or_refused(tmp_path: Path) -> None:
    """Of the pickle, under a checksum that is right, and of the file: no other error, and no hang."""
    cosmos(tmp_path)
    path, rng = tmp_path / "mutated.jit", random.Random(0)
    whole = (tmp_path / "encoder.jit").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        program = file.read("encoder/data.pkl")
        kept = {name.removeprefix("encoder/"): file.read(name) for name in file.namelist() if "/data/" in name}
    for number in range(200):
        data = bytearray(program if number % 2 else whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if number % 2:
            with zipfile.ZipFile(path, "w") as file:
                for name, held in {"data.pkl": bytes(data), **kept}.items():
                    file.writestr(f"encoder/{name}", held)
        else:
            path.write_bytes(data[: rng.randrange(len(data))] if number % 4 else data)
        start = time.monotonic()
        try:
            read_archive(path)
        except UserError as error:
            assert "\n" not in str(error)
        assert time.monotonic() - start < 5
