"""The tensors of a TorchScript archive, without TorchScript: no code in it is read, and its pickle is not loaded.

An archive is a zip: ``ROOT/data.pkl``, a pickle of the modules as bags of attributes; ``ROOT/data/KEY``, the bare
numbers of each storage; ``ROOT/byteorder`` in newer ones; code and constants, which nothing here looks at. Source:
PyTorch, torch/csrc/jit/serialization (``pickler.cpp``, ``export_module.cpp``).

A pickle is a program for a machine with a stack. ``Machine`` knows the operations that PyTorch writes, and makes of
them plain values, modules (their attributes alone), storages (by their key) and tensors (within their storage). There
is no unpickler: no class is looked up, no function is called, and an operation or a name beyond these is refused.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearfuse.synth.types import UserError, reason_of

LARGEST = 2 << 30
"""Bytes of all entries together, unpacked."""

LONGEST = 1 << 20
"""Bytes of the pickle."""

MOST = 10_000
"""Modules and attributes that are walked, each as often as it is referred to, and letters of a tensor's name."""

DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
}

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LISTS = tuple(f"torch.jit._pickle build_{kind}list" for kind in ("int", "bool", "double", "tensor"))
TAG = "torch.jit._pickle restore_type_tag"
MARK = object()


@dataclass
class Module:
    """A module's attributes, all that is known of it."""

    attributes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """What the pickle means to import: ``module name``. It never is."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Numbers of one kind in a row: which entry of the archive has them, and how many they are."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor: where in its storage it lies, in elements."""

    storage: Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Machine:
    """What runs the pickle. lengths: bytes of each storage in the archive."""

    lengths: dict[str, int]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, program: bytes) -> Any:
        """The object that the pickle stands for. Raises ValueError where it is more than modules and tensors."""
        for operation, argument, _ in pickletools.genops(program):
            if operation.name == "STOP":
                return self.stack[-1]
            self.step(operation.name, argument)
        raise ValueError("a pickle without an end")

    def step(self, name: str, argument: Any) -> None:
        """One operation."""
        stack = self.stack
        match name:
            case "PROTO":
                pass
            case "MARK":
                stack.append(MARK)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "APPENDS" | "SETITEMS" | "SETITEM":
                self._put(self._since_mark() if name.endswith("S") else [stack.pop(-2), stack.pop()])
            case "GLOBAL":
                stack.append(Name(argument))
            case "NEWOBJ" | "REDUCE":
                arguments, what = stack.pop(), stack.pop()
                stack.append(self._made(what, arguments, new=name == "NEWOBJ"))
            case "BUILD":
                state, module = stack.pop(), stack[-1]
                if type(module) is not Module or type(state) is not dict:
                    raise ValueError("the state of something that is no module")
                module.attributes = state
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case _ if name in TUPLES:
                parts = [stack.pop() for _ in range(TUPLES[name])]
                stack.append(tuple(reversed(parts)))
            case _ if name in CONSTANTS or name in VALUES:
                stack.append(CONSTANTS.get(name, argument))
            case _:
                raise ValueError(f"a pickle's operation that no archive of tensors needs: {name}")

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def _put(self, items: Sequence[Any]) -> None:
        """Into the list or the dict on top of the stack."""
        into = self.stack[-1]
        if type(into) is list:
            into.extend(items)
        elif type(into) is dict and len(items) % 2 == 0 and all(type(key) in (str, int) for key in items[::2]):
            into.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise ValueError("items of something that is neither a list nor a dict")

    def _made(self, what: Any, arguments: Any, new: bool) -> Any:
        """What a call would make, for the few that PyTorch writes."""
        name = what.name if isinstance(what, Name) else type(what).__name__
        match name, arguments:
            case str(), () if new and name.startswith(("__torch__.", "__torch__ ")):
                return Module()
            case "collections OrderedDict", () if not new:
                return {}
            case "torch._utils _rebuild_tensor_v2", (Storage(), offset, tuple(sizes), tuple(strides), bool(), {}) if (
                not new
            ):
                return _stored(arguments[0], offset, sizes, strides)
            case _, (list(items),) if name in LISTS and not new:
                return items
            case _, (items, str()) if name == TAG and not new:
                return items
        raise ValueError(f"more than tensors: {name}")

    def _storage(self, arguments: Any) -> Storage:
        match arguments:
            case ("storage", Name(kind), str(key), str(), int(count)) if kind in DTYPES:
                held = self.lengths.get(key)
                if held != count * DTYPES[kind].itemsize:
                    raise ValueError(f"storage {key} of {count} numbers, for which it has {held} bytes")
                return Storage(key, DTYPES[kind], count)
            case ("storage", Name(kind), *_):
                raise ValueError(f"a storage of the kind {kind}; allowed: {', '.join(DTYPES)}")
        raise ValueError("a reference to something that is no storage")


def _stored(storage: Storage, offset: Any, sizes: Any, strides: Any) -> Stored:
    """A tensor that lies within its storage. Raises ValueError for one that does not."""
    if not len(sizes) == len(strides) <= 8:
        raise ValueError("a tensor without a stride for each of its sizes, 8 at most")
    if not all(type(x) is int and 0 <= x < LARGEST for x in (offset, *sizes, *strides)):
        raise ValueError("a tensor whose offset, sizes and strides are not whole numbers from 0 on")
    count, last = math.prod(sizes), offset + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
    # No tensor has more elements than its storage: a stride of 0 would claim any number of them.
    if count > storage.count or (count and last >= storage.count):
        raise ValueError(f"a tensor of sizes {sizes} is beyond its storage of {storage.count} numbers")
    return Stored(storage, offset, sizes, strides)


def read_archive(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive on the CPU, by the names that its modules give them.

    Raises UserError, one line, where the file is no such archive, or holds more than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _tensors(archive)
    except (
        zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError, struct.error,
        LookupError, TypeError,
    ) as error:  # fmt: skip
        raise UserError(f"{path}: is no TorchScript archive whose tensors can be read: {reason_of(error)}") from None


def _tensors(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in archive.infolist()) > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST >> 30} GiB")
    roots = [name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1 or len(entries) != len(archive.infolist()):
        raise ValueError("it must hold one ROOT/data.pkl, and no entry twice")
    below = roots[0].removesuffix(".pkl") + "/"
    order = below.removesuffix("data/") + "byteorder"
    if order in entries and (found := _read(archive, entries[order])) != sys.byteorder.encode():
        raise ValueError(f"its byte order is '{found.decode(errors='replace')}', this machine's '{sys.byteorder}'")
    if entries[roots[0]].file_size > LONGEST:
        raise ValueError(f"its pickle has more than {LONGEST >> 20} MiB")
    lengths = {name.removeprefix(below): info.file_size for name, info in entries.items() if name.startswith(below)}
    stored = _named(Machine(lengths).run(_read(archive, entries[roots[0]])))
    kept = {
        key: bytearray(_read(archive, entries[below + key])) for key in {each.storage.key for each in stored.values()}
    }
    return {name: _tensor(each, kept[each.storage.key]) for name, each in stored.items()}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """An entry, its checksum looked at. PyTorch compresses none of those that are read here."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{info.filename} is compressed")
    return archive.read(info)


def _named(root: Any) -> dict[str, Stored]:
    """The tensors below a module, by their dotted names."""
    if type(root) is not Module:
        raise ValueError("it holds no module")
    found: dict[str, Stored] = {}
    left, walked = [("", root)], 0
    while left:
        prefix, module = left.pop()
        for name, value in module.attributes.items():
            if (walked := walked + 1) > MOST or len(prefix) > MOST:
                raise ValueError(f"more than {MOST} modules and attributes, or as many letters in a name")
            if isinstance(value, Stored):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Module):
                left.append((f"{prefix}{name}.", value))
    return found


def _tensor(stored: Stored, data: bytearray) -> Tensor:
    if not stored.storage.count:
        return torch.empty(stored.sizes, dtype=stored.storage.dtype)
    return torch.frombuffer(data, dtype=stored.storage.dtype).as_strided(stored.sizes, stored.strides, stored.offset)
