"""A Hugging Face Hub for tests: one HTTP server in this process, its repositories in memory.

It answers what `huggingface_hub` asks of the Hub for models: repositories, commits, revisions,
files (regular and LFS), lists, cards. Sources: the Hub's API pages (hf.co/docs/hub/api), the Git
LFS batch API (github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md), and the requests the client
makes. Xet is not served: the client must be told so, HF_HUB_DISABLE_XET=1 (`HubServer.env` and
`HubServer.use` do), or its uploads fail; downloads need nothing.

    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path)  # or subprocess.run(..., env=os.environ | hub.env(tmp_path))
        hub.add("org/name", {"config.json": b"{}"})
        snapshot_download("org/name")
        hub.files("org/name"), hub.count("GET", "/resolve/")
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".npy")
LFS_OVER = 100_000  # bytes; a longer file of any name is LFS (the Hub's own limit is 10 MB)
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
CHUNK = 65536

# The likeliest of hf.co/docs/hub/repositories-licenses, where there are some eighty.
LICENSES = {"afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "mit"}
LICENSES |= {"cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "openrail"}
LICENSES |= {"gpl-2.0", "gpl-3.0", "isc", "lgpl-3.0", "mpl-2.0", "other", "unknown", "unlicense"}


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub keeps a file in LFS; an empty file it never does."""
    return size > LFS_OVER or (size > 0 and path.endswith(LFS_SUFFIXES))


def blob_id(data: bytes) -> str:
    """The name git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    """The name LFS gives a file's content."""
    return hashlib.sha256(data).hexdigest()


def describe(path: str, data: bytes) -> dict[str, Any]:
    """A file as the tree of a repository lists it."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
    if is_lfs(path, len(data)):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\n"
        pointer += f"size {len(data)}\n"
        entry["oid"] = blob_id(pointer.encode())
        entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": len(pointer)}
    return entry


def check_card(readme: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """The metadata of a card, what the Hub refuses it for, and what the Hub warns of."""
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", readme, re.DOTALL | re.MULTILINE)
    try:
        card = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return {}, [f"bad YAML: {error}"], []
    if card is None:
        return {}, [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(card, dict):
        return {}, ["the metadata must be a mapping of keys to values"], []
    errors = []
    licenses = card.get("license", [])
    for license in licenses if isinstance(licenses, list) else [licenses]:
        if not isinstance(license, str) or license not in LICENSES:
            errors.append(f'"license" must be one of the known licenses, not {license!r}')
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(card.get("pipeline_tag") or "none")):
        errors.append('"pipeline_tag" must be the name of a task')
    for key in ("tags", "widget", "model-index"):
        if not isinstance(card.get(key), list | None):
            errors.append(f'"{key}" must be an array')
    for key in ("tags", "datasets", "language", "metrics"):
        if not all(isinstance(value, str) for value in _listed(card, key)):
            errors.append(f'"{key}" must hold strings')
    for m, model in enumerate(_listed(card, "model-index")):
        errors += _check(model, f"model-index[{m}]", ("name", "results"))
        for r, result in enumerate(_listed(model, "results")):
            at = f"model-index[{m}].results[{r}]"
            errors += _check(result, at, ("task.type", "dataset.type", "dataset.name", "metrics"))
            for i, metric in enumerate(_listed(result, "metrics")):
                errors += _check(metric, f"{at}.metrics[{i}]", ("type", "value"))
    return (card if not errors else {}), errors, []


def _listed(card: Any, key: str) -> list[Any]:
    """A value of a card that may be one thing or several, as a list."""
    value = card.get(key) if isinstance(card, dict) else None
    return value if isinstance(value, list) else [] if value is None else [value]


def _check(item: Any, at: str, keys: tuple[str, ...]) -> list[str]:
    """What the item lacks of the (dotted) keys."""
    lacking = []
    for key in keys:
        value = item
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value in (None, ""):
            lacking.append(f'"{at}.{key}" is required')
    return lacking


@dataclass
class Commit:
    """One state of a repository: every file of it, whole."""

    files: dict[str, bytes] = field(repr=False)
    title: str
    message: str = ""
    parent: Commit | None = field(default=None, repr=False)
    date: str = field(
        default_factory=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    )
    sha: str = field(default_factory=lambda: secrets.token_hex(20))

    def history(self) -> list[Commit]:
        """This commit and those before it, newest first."""
        commits = [self]
        while commits[-1].parent:
            commits.append(commits[-1].parent)
        return commits


@dataclass
class Repo:
    """A model repository: its branches and tags, and what was uploaded to its LFS."""

    id: str
    private: bool = False
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a (shortened) commit id names."""
        named = self.tags | self.branches
        if revision in named:
            return named[revision]
        for tip in named.values():
            for commit in tip.history():
                if len(revision) >= 7 and commit.sha.startswith(revision):
                    return commit
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def info(self, commit: Commit, *, files: bool = True, blobs: bool = False) -> dict[str, Any]:
        """What the Hub tells of a model."""
        readme = commit.files.get("README.md", b"").decode(errors="replace")
        card, _, _ = check_card(readme)
        tags = [card.get("library_name"), card.get("pipeline_tag")]
        tags += ["safetensors" for path in commit.files if path.endswith(".safetensors")]
        tags += _listed(card, "tags") + _listed(card, "language")
        for key, prefix in (("datasets", "dataset"), ("license", "license")):
            tags += [f"{prefix}:{value}" for value in _listed(card, key)]
        tags += [f"arxiv:{i}" for i in re.findall(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{5})", readme)]
        info = {
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": commit.history()[-1].date,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list(dict.fromkeys(tag for tag in tags if tag)),
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
        }
        if files:
            info |= {"cardData": card or None, "siblings": []}
        for path, data in commit.files.items() if files else ():
            sibling = {"rfilename": path}
            if blobs:
                entry = describe(path, data)
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if lfs := entry.get("lfs"):
                    sibling["lfs"] = lfs | {"sha256": lfs["oid"]}
            info["siblings"].append(sibling)
        return info


class Request(NamedTuple):
    """A line of the server's log; `range` is the Range header, None where there was none."""

    method: str
    path: str
    status: int
    range: str | None


class HubServer:
    """A Hub on a free port of 127.0.0.1, from `with` to the end of the block.

    Attributes a test may set, to have things go wrong:
        fail_commit, fail_lfs: how many commits, LFS uploads yet to refuse (math.inf: all).
        fail_status: with which status; the client tries 408, 429, 500, 502, 503 and 504 again,
            five times over 23 s, where it uploads; 507 it does not.
        cut_after: break the connection, once, after so many bytes of a file longer than that.
            Of what came in a chunk not full (10 MiB: constants.DOWNLOAD_CHUNK_SIZE) the client
            keeps nothing: patch that to see it ask for the rest of a smaller file.
        slow: seconds to wait before each 64 KiB of a file.
        replies: what to answer to requests for these paths.
        alter: a function of a path and its reply, which returns the reply to send instead.
        endless: a part of a path whose replies never end; they state no length.
    And to see what was done: `log`, a list of Request; `sent`, the bytes of files sent.
    """

    def __init__(self, user: str = "tester", token: str = "hf_token_of_the_tester"):
        self.user, self.token = user, token
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, tuple[Repo, str, int]] = {}  # signed key: repo, sha256, size
        self.fail_commit: float = 0
        self.fail_lfs: float = 0
        self.fail_status = 500
        self.cut_after: int | None = None
        self.replies: dict[str, Reply] = {}
        self.slow = 0.0
        self.alter: Callable[[str, Reply], Reply] = lambda path, reply: reply
        self.endless: str | None = None
        self.log: list[Request] = []
        self.sent = 0
        self.lock = threading.RLock()

    def __enter__(self) -> HubServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def env(self, home: Path | str, *, token: bool = True) -> dict[str, str]:
        """The environment variables that point a new process at this Hub, its cache at `home`."""
        env = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(Path(home) / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        return env | ({"HF_TOKEN": self.token} if token else {})

    def use(self, monkeypatch: Any, home: Path | str, *, token: bool = True) -> None:
        """Point the client of this process at this Hub, by pytest's monkeypatch.

        huggingface_hub reads its environment once, on import: its constants are patched too.
        """
        from huggingface_hub import constants, hf_api

        monkeypatch.delenv("HF_TOKEN", raising=False)
        for key, value in self.env(home, token=token).items():
            monkeypatch.setenv(key, value)
        for key, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(Path(home) / "hub"),
            "HF_ASSETS_CACHE": str(Path(home) / "assets"),
            "HF_TOKEN_PATH": str(Path(home) / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, key, value, raising=False)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)

    def create(self, repo: str, *, private: bool = False) -> Repo:
        """A new repository, of one commit, as the Hub makes it."""
        made = self.repos[repo] = Repo(repo, private)
        made.branches["main"] = Commit({".gitattributes": GITATTRIBUTES}, "initial commit")
        return made

    def add(self, repo: str, files: dict[str, bytes], title: str = "Add files") -> str:
        """Commit files to the main branch, of a new repository if need be; return its id."""
        with self.lock:
            to = self.repos.get(repo) or self.create(repo)
            to.lfs |= {
                sha256(data): data for path, data in files.items() if is_lfs(path, len(data))
            }
            tip = to.branches["main"]
            to.branches["main"] = Commit({**tip.files, **files}, title, parent=tip)
            return to.branches["main"].sha

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a repository, but for the .gitattributes that the Hub itself put there."""
        files = self.repos[repo].at(revision).files
        return {path: data for path, data in files.items() if path != ".gitattributes"}

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """The commits of a repository, newest first."""
        return self.repos[repo].at(revision).history()

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method had `part` in their path."""
        return sum(line.method == method and part in line.path for line in self.log)


class RefusedError(Exception):
    """A request the Hub does not grant, as it says so."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any):
        line = message.splitlines()[0].encode("ascii", "replace").decode()
        self.headers = {"X-Error-Message": line} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply(status, _json({"error": message, **body}), self.headers)


class Reply(NamedTuple):
    """What is sent back; a file's body is the one that is cut, slowed and counted."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    is_file: bool = False


def _json(data: Any) -> bytes:
    return json.dumps(data, default=str).encode()


_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any], bool]] = []


def _route(methods: str, path: str, *, write: bool = False) -> Callable[[Any], Any]:
    """Let a method of the handler answer the requests for a path; a `write` needs the token."""
    pattern = path.replace(".", r"\.").replace("{path}", "(?P<path>.+)")
    pattern = pattern.replace("{repo}", "(?P<repo>[^/]+(?:/[^/]+)??)")
    pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)

    def register(function: Any) -> Any:
        _ROUTES.append((methods, re.compile(pattern), function, write))
        return function

    return register


class _Handler(BaseHTTPRequestHandler):
    """One request: HTTP/1.0, so that no connection outlives the server of its test."""

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, *_: Any) -> None:  # hub.log is the log
        pass

    def serve(self) -> None:
        """Answer one request: the state changes under the lock, the bytes go out beside it."""
        self.hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        self.body = self.read_body()
        with self.hub.lock:
            try:
                reply = self.answer()
            except RefusedError as refused:
                reply = refused.reply
            except (KeyError, TypeError, ValueError) as error:
                reply = RefusedError(400, f"malformed request: {error!r}").reply
            self.hub.log.append(
                Request(self.command, self.path, reply.status, self.headers.get("Range"))
            )
        self.send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self) -> Reply:
        given = self.headers.get("Authorization")
        self.is_user = given == f"Bearer {self.hub.token}"
        if given is not None and not self.is_user:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        if url.path in self.hub.replies:
            return self.hub.replies[url.path]
        for methods, pattern, function, write in _ROUTES:
            match = pattern.fullmatch(url.path)
            if match and self.command in methods.split():
                if write and not self.is_user:
                    raise RefusedError(401, "Invalid username or password.")
                asked = {key: unquote(value or "") for key, value in match.groupdict().items()}
                if "repo" in asked:
                    asked["repo"] = self.find(asked["repo"])
                answer = function(self, **asked)
                return answer if isinstance(answer, Reply) else Reply(200, _json(answer))
        raise RefusedError(404, f"{self.command} {url.path} is not served by the Hub of the tests")

    def find(self, name: str) -> Repo:
        """A repository; the Hub tells nobody unknown whether one is private or not there."""
        repo = self.hub.repos.get(name)
        if repo is not None and (self.is_user or not repo.private):
            return repo
        if self.is_user:
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        raise RefusedError(401, "Invalid username or password.", "RepoNotFound")

    def send(self, reply: Reply) -> None:
        reply = self.hub.alter(self.path, reply)
        endless = self.hub.endless is not None and self.hub.endless in self.path
        self.send_response(reply.status)
        for key, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(key, value)
        if not endless or self.command == "HEAD":
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        while endless:  # until the client breaks the connection
            time.sleep(self.hub.slow)
            self.wfile.write(b" " * CHUNK if not self.hub.slow else b" ")
        body = reply.body
        if not reply.is_file:
            self.wfile.write(body)
            return
        with self.hub.lock:
            cut = self.hub.cut_after
            if cut is not None and cut < len(body):
                self.hub.cut_after, body = None, body[:cut]
        for start in range(0, len(body), CHUNK):
            time.sleep(self.hub.slow)
            self.wfile.write(body[start : start + CHUNK])
            with self.hub.lock:
                self.hub.sent += len(body[start : start + CHUNK])

    # Users and repositories

    @_route("GET", "/api/whoami-v2", write=True)
    def whoami(self) -> Any:
        access = {"accessToken": {"displayName": "tests", "role": "write"}}
        return {"type": "user", "name": self.hub.user, "orgs": [], "auth": access}

    def asked_repo(self) -> tuple[str, dict[str, Any]]:
        asked = json.loads(self.body)
        if asked.get("type") not in (None, "model"):
            raise RefusedError(400, "only models are kept by the Hub of the tests")
        return f"{asked.get('organization') or self.hub.user}/{asked['name']}", asked

    @_route("POST", "/api/repos/create", write=True)
    def create(self) -> Any:
        name, asked = self.asked_repo()
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            raise RefusedError(409, "You already created this model repo", url=url)
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.create(name, private=private)
        return {"url": url, "name": name}

    @_route("DELETE", "/api/repos/delete", write=True)
    def delete(self) -> Any:
        del self.hub.repos[self.find(self.asked_repo()[0]).id]

    @_route("POST", "/api/validate-yaml")
    def validate(self) -> Any:
        _, errors, warnings = check_card(json.loads(self.body)["content"])
        found = {"errors": errors, "warnings": warnings}
        told = {kind: [{"message": text} for text in texts] for kind, texts in found.items()}
        if "text/plain" in self.headers.get("Accept", ""):
            return Reply(400 if errors else 200, "\n".join(errors).encode())
        return Reply(400 if errors else 200, _json(told))

    # Reading

    @_route("GET", "/api/models")
    def models(self) -> Any:
        asked = {key: values[0] for key, values in self.query.items()}
        infos = []
        for repo in self.hub.repos.values():
            full = repo.info(repo.at("main"))
            if (
                (self.is_user or not repo.private)
                and asked.get("author", full["author"]) == full["author"]
                and asked.get("search", "").lower() in repo.id.lower()
                and asked.get("pipeline_tag", full["pipeline_tag"]) == full["pipeline_tag"]
                and set(self.query.get("filter", [])) <= set(full["tags"])
            ):
                infos.append(full if "full" in asked else repo.info(repo.at("main"), files=False))
        infos.sort(key=lambda info: info["lastModified"], reverse=True)
        return infos[: int(asked.get("limit", len(infos)))]

    @_route("GET", "/api/models/{repo}/revision/{revision}")
    def info_at(self, repo: Repo, revision: str) -> Any:
        return repo.info(repo.at(revision), blobs="blobs" in self.query)

    @_route("GET", "/api/models/{repo}/commits/{revision}")
    def commits(self, repo: Repo, revision: str) -> Any:
        author = {"authors": [{"user": self.hub.user}]}
        return [
            {"id": c.sha, "title": c.title, "message": c.message, "date": c.date, **author}
            for c in repo.at(revision).history()
        ]

    @_route("GET", "/api/models/{repo}/tree/{revision}")
    @_route("GET", "/api/models/{repo}/tree/{revision}/{path}")
    def tree(self, repo: Repo, revision: str, path: str = "") -> Any:
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folder = path.strip("/") + "/" if path else ""
        files = repo.at(revision).files
        entries = {}
        for name in sorted(files):
            if name.startswith(folder):
                parts = name.removeprefix(folder).split("/")
                for depth in range(1, len(parts) if deep else min(len(parts), 2)):
                    at = folder + "/".join(parts[:depth])
                    entries[at] = {"type": "directory", "path": at, "size": 0, "oid": "0" * 40}
                if deep or len(parts) == 1:
                    entries[name] = describe(name, files[name])
        if path and not entries:
            raise RefusedError(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        return list(entries.values())

    @_route("GET", "/api/models/{repo}")
    def info(self, repo: Repo) -> Any:
        return self.info_at(repo, "main")

    @_route("GET HEAD", "/{repo}/resolve/{revision}/{path}")
    def resolve(self, repo: Repo, revision: str, path: str) -> Reply:
        commit = repo.at(revision)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            refused = RefusedError(404, "Entry not found", "EntryNotFound")
            refused.headers.update(headers)
            raise refused
        data = commit.files[path]
        headers |= {"Content-Type": "application/octet-stream", "ETag": f'"{blob_id(data)}"'}
        if is_lfs(path, len(data)):
            etag = f'"{sha256(data)}"'
            headers |= {"ETag": etag, "X-Linked-ETag": etag, "X-Linked-Size": str(len(data))}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or self.command == "HEAD" or asked.groups() == ("", ""):
            return Reply(200, data, headers, is_file=True)
        first, last = asked.groups()
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= stop:
            return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return Reply(206, data[start:stop], headers, is_file=True)

    # Writing

    @_route("POST", "/api/models/{repo}/preupload/{revision}", write=True)
    def preupload(self, repo: Repo, revision: str) -> Any:
        old = repo.at(revision).files
        told = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if is_lfs(path, file["size"]) else "regular"
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
            if path in old:
                told[-1]["oid"] = (sha256 if is_lfs(path, len(old[path])) else blob_id)(old[path])
        return {"files": told}

    @_route("POST", "/{repo}.git/info/lfs/objects/batch", write=True)
    def lfs_batch(self, repo: Repo) -> Any:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            objects.append({"oid": oid, "size": size})
            if oid not in repo.lfs:
                key = secrets.token_urlsafe(16)
                self.hub.uploads[key] = repo, oid, size
                verify = {"href": f"{self.hub.url}/{repo.id}.git/info/lfs/objects/verify"}
                upload = {"href": f"{self.hub.url}/lfs/{key}"}
                objects[-1]["actions"] = {"upload": upload, "verify": verify}
        return {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}

    @_route("PUT", "/lfs/{key}")
    def lfs_put(self, key: str) -> Any:
        """Store an object: the key of the address is the permission, as with a signed URL."""
        if self.hub.fail_lfs > 0:
            self.hub.fail_lfs -= 1
            raise RefusedError(self.hub.fail_status, "the upload failed, as the test wished")
        if key not in self.hub.uploads:
            raise RefusedError(403, "Access Denied")
        repo, oid, size = self.hub.uploads[key]
        if (sha256(self.body), len(self.body)) != (oid, size):
            raise RefusedError(400, f"{len(self.body)} bytes are not the object {oid} of {size}")
        repo.lfs[oid] = self.body
        return Reply(200, headers={"ETag": f'"{oid}"'})

    @_route("POST", "/{repo}.git/info/lfs/objects/verify", write=True)
    def lfs_verify(self, repo: Repo) -> Any:
        asked = json.loads(self.body)
        if len(repo.lfs.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, f"there is no object {asked['oid']} of {asked['size']} bytes")
        return {}

    @_route("POST", "/api/models/{repo}/commit/{revision}", write=True)
    def commit(self, repo: Repo, revision: str) -> Any:
        """Every change, or none: the branch moves once all are made, if only to a like state."""
        if self.hub.fail_commit > 0:
            self.hub.fail_commit -= 1
            raise RefusedError(self.hub.fail_status, "the commit failed, as the test wished")
        if self.query.get("create_pr"):
            raise RefusedError(400, "pull requests are not kept by the Hub of the tests")
        tip = repo.at(revision)
        if revision not in repo.branches:
            raise RefusedError(400, f"{revision} is no branch")
        header, *changes = [json.loads(line) for line in self.body.splitlines()]
        header = header["value"]
        if not tip.sha.startswith(header.get("parentCommit", "")):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(tip.files)
        for change in changes:
            self.change(repo, files, change["key"], change["value"])
        _, errors, _ = check_card(files.get("README.md", b"").decode(errors="replace"))
        if errors:
            raise RefusedError(400, "Invalid metadata in README.md.\n" + "\n".join(errors))
        made = Commit(files, header["summary"], header.get("description", ""), parent=tip)
        repo.branches[revision] = made
        url = f"{self.hub.url}/{repo.id}/commit/{made.sha}"
        return {"success": True, "commitOid": made.sha, "commitUrl": url}

    def change(self, repo: Repo, files: dict[str, bytes], kind: str, value: Any) -> None:
        """Make one change of a commit to the files."""
        path = value["path"]
        if kind == "deletedFolder":
            gone = [name for name in files if name.startswith(path.rstrip("/") + "/")]
        else:
            gone = [path] if path in files else []
        if kind in ("deletedFile", "deletedFolder"):
            if not gone:
                raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        elif {"", ".", "..", ".git"} & set(path.split("/")):
            raise RefusedError(400, f"{path!r} is no path of a file")
        elif kind == "file":
            files[path] = base64.b64decode(value["content"], validate=True)
            if is_lfs(path, len(files[path])):
                raise RefusedError(400, f"{path} must be uploaded with LFS")
        elif kind == "lfsFile":
            if value["oid"] not in repo.lfs:
                raise RefusedError(400, f"{path} points to an LFS object that was not uploaded")
            files[path] = repo.lfs[value["oid"]]
        else:
            raise RefusedError(400, f"{kind!r} is no change of a commit")
