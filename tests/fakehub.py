"""A hub on localhost: the handful of its endpoints that a push and ``hf://`` ask, as huggingface_hub speaks them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

TOKEN = "hf_fake"


@dataclass
class Repository:
    """private, and by branch the files: path -> (content, large). pinned: the newest commit's id, where it has one."""

    private: bool
    branches: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=list[str])
    pinned: str = ""

    @property
    def commit(self) -> str:
        """The newest."""
        return self.pinned or f"{len(self.commits):040x}"


class FakeHub:
    """What the server holds, and what was asked of it. ``fail_commits``: answer 500 once so many commits are made."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.downloads: list[str] = []
        self.fail_commits: int | None = None
        self.url = ""

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch."""
        return {path: data for path, (data, _) in self.repositories[repo].branches[branch].items()}

    def hold(self, repo: str, folder: Path, commit: str, below: str = "") -> None:
        """The files of a folder as a repository at one commit."""
        files = {f"{below}{path.relative_to(folder)}": path for path in sorted(folder.rglob("*")) if path.is_file()}
        held = {name: (path.read_bytes(), path.suffix != ".json") for name, path in files.items()}
        self.repositories[repo] = Repository(False, {"main": held}, pinned=commit)


def _entry(name: str, data: bytes, large: bool) -> dict[str, Any]:
    """A file as a listing has it."""
    sha256 = hashlib.sha256(data).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"type": "file", "oid": blob, "size": len(data), "path": name}
    lfs = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return entry | ({"lfs": lfs, "oid": sha256[:40]} if large else {})


def _folder(name: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}


def _listing(files: dict[str, tuple[bytes, bool]], below: str, recursive: bool) -> list[dict[str, Any]]:
    """What is in a folder, ``a/b/`` or the whole, and with recursive in the folders of it."""
    found: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        if not name.startswith(below):
            continue
        parts = name.removeprefix(below).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folder = below + "/".join(parts[:depth])
            found[folder] = _folder(folder)
        if recursive or len(parts) == 1:
            found[name] = _entry(name, *file)
    return list(found.values())


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def _answer(self, data: Any, code: int = 200, error: str = "") -> None:
            body = json.dumps(data).encode()
            self.send_response(code)
            if error:
                self.send_header("X-Error-Message", error)
            if code == 404:
                self.send_header("X-Error-Code", "EntryNotFound" if error.startswith("Entry") else "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _refused(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return False
            self._answer({"error": "Invalid credentials"}, 401, "Invalid username or password.")
            return True

        def do_HEAD(self) -> None:
            self._file(self.path.partition("?")[0].split("/"), body=False)

        def _file(self, path: list[str], body: bool) -> None:  # [/datasets]/OWNER/NAME/resolve/REV/FILE
            path = path[1:] if path[1] == "datasets" else path
            repo = hub.repositories["/".join(path[1:3])]
            found = repo.branches["main"].get("/".join(path[5:]))
            if found is None:
                return self._answer({"error": "no"}, 404, "Entry not found")
            data, asked = found[0], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            part = slice(int(asked[1]), int(asked[2] or len(data)) + 1) if asked else slice(None)
            self.send_response(206 if asked else 200)
            self.send_header("X-Repo-Commit", repo.commit)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data[part])))
            if asked:
                self.send_header("Content-Range", f"bytes {part.start}-{min(part.stop, len(data)) - 1}/{len(data)}")
            self.end_headers()
            if body:
                hub.downloads.append(path[-1])
                self.wfile.write(data[part])

        def _revision(self, path: list[str]) -> None:  # /api/models/OWNER/NAME[/revision/REV]
            repo = hub.repositories.get("/".join(path[3:5]))
            if repo is None:
                return self._answer({"error": "no"}, 404, "Repository not found")
            if path[6:] and path[6] not in ("main", repo.commit, *repo.branches):
                return self._answer({"error": "no"}, 404, "Revision Not Found")
            files = [{"rfilename": name} for name in repo.branches["main"]]
            self._answer({"id": "/".join(path[3:5]), "sha": repo.commit, "siblings": files})

        def do_GET(self) -> None:
            if self._refused():
                return
            path = unquote(self.path.partition("?")[0]).split("/")  # /api/datasets/NAME/BUILD/tree/REV[/FOLDER]
            if "resolve" in path[3:5]:
                return self._file(path, body=True)
            if path[5:6] in ([], ["revision"]):
                return self._revision(path)
            repo = hub.repositories.get("/".join(path[3:5]))
            if repo is None or path[5] != "tree":
                return self._answer({"error": "no"}, 404, "Repository not found")
            files, below = repo.branches.get(path[6], repo.branches["main"]), "".join(f"{one}/" for one in path[7:])
            found = _listing(files, below, "recursive=true" in self.path.lower())
            if below and not found:
                return self._answer({"error": "no"}, 404, "Entry not found")
            self._answer(found)

        def do_PUT(self) -> None:
            data, oid = self._body(), self.path.rpartition("/")[2]
            assert hashlib.sha256(data).hexdigest() == oid
            hub.objects[oid] = data
            hub.uploads.append(oid)
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            if self._refused():
                return
            path = self.path.partition("?")[0]
            if path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif path.endswith("/objects/batch"):
                self._batch(json.loads(body))
            else:
                _, _, _, owner, name, verb, revision = path.split("/")
                repo = hub.repositories[f"{owner}/{name}"]
                verbs = {"preupload": self._preupload, "branch": self._branch, "commit": self._commit}
                (verbs | {"paths-info": self._paths})[verb](repo, revision, body)

        def _paths(self, repo: Repository, revision: str, body: bytes) -> None:
            files, asked = repo.branches.get(revision, repo.branches["main"]), parse_qs(body.decode())["paths"]
            folders = [_folder(name) for name in asked if any(file.startswith(f"{name}/") for file in files)]
            self._answer([_entry(name, *files[name]) for name in asked if name in files] + folders)

        def _create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] == "others":
                return self._answer({"error": "no"}, 403, "You don't have the rights to create a dataset there")
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            url = f"{hub.url}/{kind}{name}"
            if name in hub.repositories:
                return self._answer({"error": "exists", "url": url}, 409)
            assert asked.get("type", "model") in ("dataset", "model")
            hub.repositories[name] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
            self._answer({"url": url, "name": name, "id": name})

        def _branch(self, repo: Repository, revision: str, body: bytes) -> None:
            if revision in repo.branches:
                return self._answer({"error": "exists"}, 409)
            repo.branches[revision] = dict(repo.branches["main"])
            self._answer({})

        def _preupload(self, repo: Repository, revision: str, body: bytes) -> None:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".tar") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            self._answer({"files": files})

        def _batch(self, asked: dict[str, Any]) -> None:
            objects: list[dict[str, Any]] = []
            for one in asked["objects"]:
                upload = {"upload": {"href": f"{hub.url}/objects/{one['oid']}"}}
                objects.append(one if one["oid"] in hub.objects else one | {"actions": upload})
            self._answer({"transfer": "basic", "objects": objects})

        def _commit(self, repo: Repository, revision: str, body: bytes) -> None:
            if hub.fail_commits is not None and len(repo.commits) >= hub.fail_commits:
                return self._answer({"error": "no"}, 500, "Internal error, we are working on it")
            lines = [json.loads(line) for line in body.splitlines()]
            files = repo.branches[revision]
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    repo.commits.append(value["summary"])
                elif line["key"] == "file":
                    assert value["encoding"] == "base64"
                    files[value["path"]] = (base64.b64decode(value["content"]), False)
                elif line["key"] == "lfsFile":
                    files[value["path"]] = (hub.objects[value["oid"]], True)
                else:
                    assert line["key"] == "deletedFile"
                    del files[value["path"]]
            name = next(name for name, one in hub.repositories.items() if one is repo)
            oid = f"{len(repo.commits):040x}"
            self._answer({"commitUrl": f"{hub.url}/datasets/{name}/commit/{oid}", "commitOid": oid, "success": True})

    return Handler


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers at ``url`` within the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
