"""The files of a build that other tools read: ``index.json`` for wids, ``croissant.json``, the card's ``features``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.files.jsonstream import Stream
from clearfuse.synth.shards.receipts import Receipts
from clearfuse.synth.shards.records import WidsIndex, WidsShard, member_names
from clearfuse.synth.types import ROLES, BuildTask

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build

TITLES: dict[BuildTask, str] = {
    "vif": "visible + infrared",
    "mef": "multi-exposure",
    "mff": "multi-focus",
    "m3": "block-wise",
    "control": "tone-controlled",
    "segment": "class-marking",
    "ditfuse": "instructed",
}


def what_a_and_b_are(task: BuildTask) -> str:
    """What the two images of a build's samples show, as a clause."""
    roles = next((roles for known, roles in ROLES.items() if known == task), None)
    if roles is None:
        return "a and b are two pictures of a scene; the json says of which task and category each sample is"
    return f"a is the {roles['a']} image, b the {roles['b']} one"


MARK = "clearfuse:"
"""What stands before the digest in every companion, so that a build knows its own."""

_MIME = {
    "webp": "image/webp", "png": "image/png", "pnm": "image/x-portable-anymap", "jxl": "image/jxl",
    "txt": "text/plain", "json": "application/json",
}  # fmt: skip
_CROISSANT_TYPES = {"txt": "sc:Text", "json": "sc:Text"}
_UNREAD = ("jxl",)
"""Pictures that `datasets` hands over as bytes, since Pillow does not open them."""


def _members(build: Build) -> list[str]:
    return member_names(build.codec, lean=build.spec.lean, real=build.pairs.real)


def companions(build: Build, receipts: Receipts) -> dict[str, dict[str, Any]]:
    """File name -> content, in the order in which they are written.

    ``index.json`` lists the shards of the first split, ``index-SPLIT.json`` those of each further one: wids has no
    splits, and what reads an index reads all of it.
    """
    indexes = {
        "index.json" if at == 0 else f"index-{split}.json": wids_index(build, receipts, split)
        for at, split in enumerate(build.splits)
    }
    return {**indexes, "croissant.json": croissant(build, receipts)}


def wids_index(build: Build, receipts: Receipts, split: str) -> dict[str, Any]:
    """The shards of a split as ``wids.ShardListDataset`` reads them; its URLs are relative to the file."""
    listed = (
        WidsShard(url=one["shard"], nsamples=one["samples"], filesize=one["bytes"], sha256=one["sha256"]).model_dump()
        for one in receipts.of_split(split)
        if one["samples"]
    )
    index = WidsIndex(name=f"{build.spec.task}-{split}", identifier=MARK + build.digest, shardlist=())
    return {**index.model_dump(by_alias=True), "shardlist": Stream(listed)}


def features(build: Build) -> list[dict[str, str]]:
    """The columns that `datasets` gives, for the card: without them it infers those of the first five samples.

    ``json`` is of the type ``json``, since the parameters of a step differ by operator.
    """
    kinds = {"txt": "string", "json": "json"}
    columns: list[dict[str, str]] = []
    for member in _members(build):
        end = member.rpartition(".")[2]
        columns.append({"name": member, "dtype": kinds.get(end, "binary" if end in _UNREAD else "image")})
    return [*columns, *({"name": name, "dtype": "string"} for name in ("__key__", "__url__"))]


def croissant(build: Build, receipts: Receipts) -> dict[str, Any]:
    """Croissant 1.1 metadata: a FileObject a shard, and for each split and member a FileSet and a RecordSet.

    A RecordSet has the fields ``key`` and ``content``; records of one key make a sample. No date: bytes depend on what
    a build is made of alone. Source: MLCommons Croissant Format Specification 1.1.
    """
    manifests = [load_manifest(name) for name in build.settings["data"]]
    cited = [manifest.citation for manifest in manifests if manifest.citation]
    task = build.spec.task
    samples = receipts.samples.total()
    both = list(itertools.product(build.splits, _members(build)))
    sets = (_file_set(split, member, receipts) for split, member in both)
    held = "clean" if build.spec.lean else "degraded"
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{task}-{'-'.join(build.splits)}",
        "description": (
            f"{samples} samples of {held} {TITLES[task]} pairs for image fusion, in WebDataset shards: "
            f"{what_a_and_b_are(task)}. README.md says what each member is."
        ),
        "identifier": MARK + build.digest,
        "version": f"1.{build.variants}.0+{build.digest[:12]}",
        "keywords": ["image fusion", "image restoration", task, "webdataset"],
        "license": sorted({f"{manifest.title}: {manifest.licence}" for manifest in manifests}),
        "isBasedOn": sorted({manifest.url for manifest in manifests if manifest.url}),
        "distribution": Stream(itertools.chain(map(_file_object, receipts), sets)),
        "recordSet": [_record_set(split, member) for split, member in both],
    }
    if cited:
        document["citeAs"] = "; ".join(cited)
    return document


def _file_object(receipt: Mapping[str, Any]) -> dict[str, Any]:
    shard = receipt["shard"]
    return {
        "@type": "cr:FileObject",
        "@id": shard,
        "name": shard,
        "contentUrl": shard,
        "contentSize": f"{receipt['bytes']} B",
        "encodingFormat": "application/x-tar",
        "sha256": receipt["sha256"],
    }


def _file_set(split: str, member: str, receipts: Receipts) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files/{member}",
        "name": f"{split}-files/{member}",
        "containedIn": Stream({"@id": r["shard"]} for r in receipts.of_split(split)),
        "encodingFormat": _MIME[member.rpartition(".")[2]],
        "includes": f"*.{member}",
    }


def _record_set(split: str, member: str) -> dict[str, Any]:
    name = f"{split}/{member.partition('.')[0]}"
    files = {"@id": f"{split}-files/{member}"}

    def field(column: str, kind: str, extract: dict[str, Any]) -> dict[str, Any]:
        source = {"fileSet": files, **extract}
        return {"@type": "cr:Field", "@id": f"{name}/{column}", "name": column, "dataType": kind, "source": source}

    key = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([0-9]+)\."}}
    content = {"extract": {"fileProperty": "content"}}
    kind = _CROISSANT_TYPES.get(member.rpartition(".")[2], "sc:ImageObject")
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": MEMBERS[member.partition(".")[0]],
        "key": {"@id": f"{name}/key"},
        "field": [field("key", "sc:Text", key), field("content", kind, content)],
    }


MEMBERS = {
    "a": "the degraded first image",
    "b": "the degraded second image",
    "clean_a": "the first image, not degraded",
    "clean_b": "the second image, not degraded",
    "gt": "ground truth: fused from the clean pair, or the data set's own",
    "depth": "depth along the ray that the steps used: 16 bit, 1/64 m, 65535 sky, 0 invalid",
    "txt": "the prompt: what is to be removed and fused",
    "json": "what the sample was made of: sources, crop, every step with its parameters and seed, fuser, depth",
}
"""Each member in a line."""

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The standard JSON-LD context of Croissant 1.1."""
