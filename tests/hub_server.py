"""A server on this machine that speaks the part of the Hub's HTTP API that its client needs.

`HubServer` keeps repositories in memory: create, preupload, LFS (basic), commit, info, tree, paths,
resolve. `FileServer` answers single URLs. Limits: one user, one token, no access rules. Both are
for the real clients, as in

    with HubServer() as hub:
        command("share", run, "--to", "hub:me/x", cwd=folder, **hub.environment(folder))
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34
Repository = list[tuple[str, dict[str, bytes]]]
"""Commits in order, each with its id and all files at it."""


class _Quiet(ThreadingHTTPServer):
    """Prints nothing when a client leaves in the middle of an answer."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Server:
    """A server in a thread, for a `with`."""

    def __init__(self) -> None:
        self.http = _Quiet(("127.0.0.1", 0), self.handle)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.requests: list[str] = []

    def handle(self, *connection: Any) -> BaseHTTPRequestHandler:
        """Answer one connection: request, client address, server."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class FileServer(_Server):
    """Answers `paths[path]`: bytes, or a function that gets the handler and answers itself."""

    def __init__(self, paths: Mapping[str, "bytes | Callable[[Handler], None]"]):
        super().__init__()
        self.paths = paths

    def handle(self, *connection: Any) -> BaseHTTPRequestHandler:
        return _Files(self, *connection)


class HubServer(_Server):
    """Repositories by `models/user/name` and `datasets/user/name`."""

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, Repository] = {}
        self.half: str | None = None
        """The file of which a half is sent, and the rest when `go_on` is set."""
        self.is_halfway, self.go_on = threading.Event(), threading.Event()
        self.branches: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}

    def handle(self, *connection: Any) -> BaseHTTPRequestHandler:
        return _Hub(self, *connection)

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables for a child process: this Hub, a token, and new caches in `folder`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "R1RECIPES_CACHE_DIR": str(folder / "cache"),
        }

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Put a new commit with exactly these files on a branch. Returns its id."""
        commits = self.repos.setdefault(repo, [])
        name = f"{repo} {len(commits)} {sorted(files)}"
        commits.append((hashlib.sha1(name.encode()).hexdigest(), files))
        self.branches.setdefault(repo, {})[branch] = commits[-1][0]
        return commits[-1][0]

    def files(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """Commit and files at a branch or commit, None where there is none."""
        commit = self.branches.get(repo, {}).get(revision, revision)
        return next((entry for entry in self.repos.get(repo, []) if entry[0] == commit), None)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; `answer` sends a whole response."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, code: int, body: bytes = b"", **headers: Any) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, data: Any, code: int = 200) -> None:
        self.answer(code, json.dumps(data).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self.do_GET()

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


class _Files(Handler):
    def __init__(self, files: FileServer, *connection: Any):
        self.files = files
        super().__init__(*connection)  # answers every request of the connection

    def do_GET(self) -> None:
        self.files.requests.append(self.path)
        content = self.files.paths.get(self.path)
        if content is None:
            self.answer(404)
        elif isinstance(content, bytes):
            self.answer(200, content)
        else:
            content(self)


class _Hub(Handler):
    def __init__(self, hub: HubServer, *connection: Any):
        self.hub = hub
        super().__init__(*connection)

    def refuse(self, code: str, status: int = 404) -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts == [""]:
            self.answer(200)
        elif path == "/api/whoami-v2":
            self.answer_json({"name": "me", "type": "user", "orgs": [], "auth": {}})
        elif parts[0] == "api":
            self.info("/".join(parts[1:4]), parts[4:])
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if parts[0] == "datasets" else parts
            self.resolve(f"{kind}/{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))

    def info(self, repo: str, rest: list[str]) -> None:
        if repo not in self.hub.repos:
            return self.refuse("RepoNotFound")
        snapshot = self.hub.files(repo, rest[1] if len(rest) > 1 else "main")
        if snapshot is None:
            return self.refuse("RevisionNotFound")
        commit, files = snapshot
        if rest[:1] == ["tree"]:
            return self.answer_json([_entry(name, content) for name, content in files.items()])
        siblings = [{"rfilename": name} for name in files]
        name = repo.partition("/")[2]
        self.answer_json({"id": name, "sha": commit, "siblings": siblings, "private": False})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        snapshot = self.hub.files(repo, revision)
        if repo not in self.hub.repos:
            return self.refuse("RepoNotFound")
        if snapshot is None:
            return self.refuse("RevisionNotFound")
        commit, files = snapshot
        if name not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = files[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        headers = {"ETag": etag, "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if name != self.hub.half or self.command == "HEAD":
            self.answer(200, content, **headers)
            return
        self.send_response(200)
        for key, value in (headers | {"Content_Length": str(len(content))}).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.hub.is_halfway.set()
        self.hub.go_on.wait(300)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse("Unauthorized", 401)
        parts = path.strip("/").split("/")
        if path.endswith("/info/lfs/objects/batch"):
            self.lfs(json.loads(body))
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif "preupload" in parts:
            self.preupload(json.loads(body))
        elif "paths-info" in parts:
            self.paths_info("/".join(parts[1:4]), parts[5], body)
        elif "commit" in parts:
            self.add_commit("/".join(parts[1:4]), parts[5], body)
        else:
            self.answer(404)

    def create(self, body: dict[str, Any]) -> None:
        owner = body.get("organization") or "me"
        repo = f"{body.get('type') or 'model'}s/{owner}/{body['name']}"
        if repo in self.hub.repos:
            name = f"{owner}/{body['name']}"
            return self.answer_json({"url": f"{self.hub.url}/{name}", "id": name}, 409)
        self.hub.commit(repo, {".gitattributes": b""})
        name = repo.partition("/")[2]
        self.answer_json({"url": f"{self.hub.url}/{name}", "id": name})

    def preupload(self, body: dict[str, Any]) -> None:
        large = (".safetensors", ".parquet", ".gguf", ".bin")
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(large) else "regular",
                "shouldIgnore": False,
            }
            for file in body["files"]
        ]
        self.answer_json({"files": modes})

    def lfs(self, body: dict[str, Any]) -> None:
        objects = []
        for item in body["objects"]:
            url = f"{self.hub.url}/lfs/{item['oid']}"
            objects.append(item | {"actions": {"upload": {"href": url}}})
        self.answer_json({"transfer": "basic", "objects": objects})

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer(200)

    def paths_info(self, repo: str, revision: str, body: bytes) -> None:
        snapshot, form = self.hub.files(repo, revision), unquote(body.decode())
        if snapshot is None:
            return self.refuse("RevisionNotFound")
        names = [name for name in snapshot[1] if name in form]
        self.answer_json([_entry(name, snapshot[1][name]) for name in names])

    def add_commit(self, repo: str, branch: str, body: bytes) -> None:
        snapshot = self.hub.files(repo, branch)
        files = dict(snapshot[1]) if snapshot else {}
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"])
        commit, name = self.hub.commit(repo, files, branch), repo.partition("/")[2]
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self.answer_json({"success": True, "commitOid": commit, "commitUrl": url})


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
