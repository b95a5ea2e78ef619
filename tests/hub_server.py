# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A Hugging Face Hub on this machine, for tests: real HTTP on 127.0.0.1, all of it in memory.

    with Hub() as hub:
        hub.add("ada/model", {"README.md": b"# Model"})
        hub.fail("PUT", "/lfs/", status=503, times=2)
        HfApi(endpoint=hub.url, token=hub.token("ada")).upload_folder(repo_id="ada/model", folder_path="folder")
        assert hub.files("ada/model")["model.safetensors"] == weights

What it answers is in hub_answers.py, and what it keeps in hub_repositories.py.

The storage of large files is at a port of its own, which makes it another host to the client, as it is on the Hub: the
client goes there by signed addresses and leaves its token at home. Xet is not spoken. A client that finds hf_xet asks
for nothing else, so it needs HF_HUB_DISABLE_XET=1. No .gitignore is looked at, and there are no discussions.
"""

import hmac
import json
import os
import re
import secrets
import socket
import threading
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote

from hub_answers import ROUTES, Answer, Request, User
from hub_repositories import Commit, File, RefusedError, Repository


class Seen(NamedTuple):
    """A request in the log; its status is None if the connection was lost before an answer."""

    method: str
    path: str
    status: int | None
    with_token: bool


@dataclass
class Fault:
    """What befalls requests: a `status` is answered and nothing is done, or something is `lost` with the connection.

    Lost is the "request" `after` so many bytes of its body, and nothing is done; or the whole "answer", and all is
    done; or the "body" of the answer `after` so many bytes.
    """

    method: str
    path: str
    status: int | None = None
    lost: Literal["request", "answer", "body"] | None = None
    after: int = 0
    retry_after: int | None = None
    times: float = 1

    def befalls(self, method: str, path: str) -> bool:
        """Whether this request is one of those meant; it is counted then."""
        befallen = self.times > 0 and method == self.method and re.search(self.path, path) is not None
        self.times -= befallen
        return befallen


class Hub:
    """A Hub that answers as long as its context lasts.

    Args:
        page_size: how many files or commits are on a page of a list.
        large: above how many bytes a file goes into the storage, whatever its name.
        part_size: above how many bytes a file is uploaded in parts, and how large these are.
    """

    def __init__(self, page_size: int = 1000, large: int = 10_000_000, part_size: int = 5_000_000_000):
        self.page_size, self.large, self.part_size = page_size, large, part_size
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.users: dict[str, User] = {}
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.lock = threading.RLock()  # held for all that reads or changes the above
        self.secret = secrets.token_bytes()

    def __enter__(self) -> "Hub":
        self.servers = [Server(self), Server(self)]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        self.threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in self.servers]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server, thread in zip(self.servers, self.threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def token(self, user: str, role: Literal["read", "write"] = "write", organizations: Iterable[str] = ()) -> str:
        """A new token of a user, who owns what lies under their name and under those of their organizations."""
        token = f"hf_{secrets.token_hex(17)}"
        with self.lock:
            self.users[token] = User(user, role, (user, *organizations))
        return token

    def add(
        self, name: str, files: Mapping[str, bytes] | Path, revision: str = "main", repo_type: str = "model", **settings
    ) -> str:
        """Make files, or those of a folder, all that a branch of a repository holds; the id of the commit.

        The repository, with settings such as private=True, and the branch are made if they are not there.
        """
        if isinstance(files, Path):
            paths = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        with self.lock:
            repository = self.repositories.setdefault((repo_type, name), Repository(repo_type, name, **settings))
            rules = Commit({path: File(content) for path, content in files.items()}, "")
            stored = {path: File(content, self.is_large(rules, path, content)) for path, content in files.items()}
            repository.objects |= {file.sha256: file.content for file in stored.values() if file.lfs}
            ref = f"refs/heads/{revision}"
            return repository.put(ref, Commit(stored, f"Add {revision}", parent=repository.refs.get(ref))).id

    def is_large(self, commit: Commit, path: str, sample: bytes, size: int | None = None) -> bool:
        """Whether a file that is to follow a commit goes into the storage: for its name, its size or its bytes."""
        size = len(sample) if size is None else size
        return size > 0 and (size > self.large or b"\0" in sample or commit.takes_as_large(path))

    def files(self, name: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """The files of a revision with their contents."""
        with self.lock:
            files = self.repositories[repo_type, name].find(revision).files
        return {path: file.content for path, file in files.items()}

    def titles(self, name: str, revision: str = "main", repo_type: str = "model") -> list[str]:
        """The titles of the commits of a revision, the newest first."""
        with self.lock:
            return [commit.title for commit in self.repositories[repo_type, name].find(revision).history]

    def fail(self, method: str, path: str, **what: Any) -> Fault:
        """Let the next request of a method whose path the regular expression is found in fail, as `Fault` says.

        With `times`, the next so many; math.inf is all. How many are left stands in the fault, which is returned.
        """
        fault = Fault(method, path, **what)
        with self.lock:
            self.faults.append(fault)
        return fault

    def asked(self, method: str, path: str = "") -> list[Seen]:
        """The requests of a method so far whose path the regular expression is found in."""
        with self.lock:
            return [seen for seen in self.requests if seen.method == method and re.search(path, seen.path)]

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process whose Hub this is, and whose cache is its own."""
        unwanted = {"http_proxy", "all_proxy", "hf_hub_offline", "transformers_offline", "hf_token"}
        environment = {name: value for name, value in os.environ.items() if name.lower() not in unwanted}
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return environment | ours | ({"HF_TOKEN": token} if token else {})

    def signed(self, path: str) -> str:
        """An address of the storage, with the proof that it came from here."""
        return f"{self.storage_url}{path}?signature={hmac.digest(self.secret, path.encode(), 'sha256').hex()}"


# --- HTTP ------------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Listens at a port of its own, and leaves no thread and no connection behind when it is closed."""

    daemon_threads = False  # or closing does not wait for them
    request_queue_size = 64

    def __init__(self, hub: Hub):
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Connection)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self):
        for connection in list(self.connections):  # those that clients keep for their next request
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class Connection(BaseHTTPRequestHandler):
    """Reads requests, lets faults befall them, and sends what the functions of the table answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body of an answer waits until its head is acknowledged

    def log_message(self, *arguments):
        pass

    def handle(self):
        with suppress(ConnectionError):  # the client is gone: killed, perhaps
            super().handle()

    def do_GET(self):
        hub, (path, _, query) = self.server.hub, self.path.partition("?")
        with hub.lock:
            fault = next((each for each in hub.faults if each.befalls(self.command, unquote(path))), Fault("", ""))
        self.close_connection |= fault.lost is not None
        body = self.body(fault.after if fault.lost == "request" else None)
        with hub.lock:
            answer = None if fault.lost == "request" else self.answer(fault, path, query, body)
            answer = None if fault.lost == "answer" else answer
            # Before it is sent: who has the answer finds the request in the log.
            seen = Seen(self.command, unquote(path), answer and answer.status, "Authorization" in self.headers)
            hub.requests.append(seen)
        if answer is not None:
            self.send(answer, fault.after if fault.lost == "body" else None)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # named by http.server

    def body(self, limit: int | None) -> bytes:
        """The body of a request, or the beginning of one that is to be lost."""
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size if limit is None else min(limit, size))
        if limit is None and len(body) < size:
            raise ConnectionError("the client went away in the middle of a request")
        return body

    def answer(self, fault: Fault, path: str, query: str, body: bytes) -> Answer:
        hub, method = self.server.hub, "GET" if self.command == "HEAD" else self.command
        if fault.status is not None:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return Answer({"error": "This was to fail"}, fault.status, headers)
        try:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token and token not in hub.users:
                raise RefusedError(401, "Invalid credentials in Authorization header")
            for wanted, pattern, function in ROUTES:
                if wanted == method and (match := pattern.fullmatch(path)):
                    parts = {name: part and unquote(part) for name, part in match.groupdict().items()}
                    user = hub.users.get(token)
                    said = function(Request(hub, path, parts, parse_qs(query), self.headers, body, user))
                    return said if isinstance(said, Answer) else Answer(said)
            raise RefusedError(404, f"Nothing answers to {method} {path}")
        except RefusedError as refused:
            return Answer(refused.content, refused.status, refused.headers)
        except Exception:  # a request that no client sends, or a mistake here
            return Answer({"error": traceback.format_exc()}, 500)

    def send(self, answer: Answer, limit: int | None) -> None:
        """Send an answer, or its head and so much of its body."""
        is_bytes = isinstance(answer.content, bytes)
        content = answer.content if is_bytes else json.dumps(answer.content, default=str).encode()
        kind = "application/octet-stream" if is_bytes else "application/json"
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": kind, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if limit is None else content[:limit])
