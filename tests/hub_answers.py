# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the Hub of hub_server.py answers, after huggingface_hub 2.4.0: a table of functions by method and path.

KIND is models, datasets or spaces, and NAME is namespace/name:

    users         GET        /api/whoami-v2
    repositories  POST       /api/repos/create
                  DELETE     /api/repos/delete
    reading       GET        /api/KIND/NAME[/revision/REVISION]
                  GET        /api/KIND/NAME/tree/REVISION[/PATH]
                  POST       /api/KIND/NAME/paths-info/REVISION
                  GET        /api/KIND/NAME/commits/REVISION
                  GET, HEAD  /[KIND/]NAME/resolve/REVISION/PATH
    refs          GET        /api/KIND/NAME/refs
                  POST       /api/KIND/NAME/branch/BRANCH, /api/KIND/NAME/tag/REVISION
                  DELETE     /api/KIND/NAME/branch/BRANCH, /api/KIND/NAME/tag/TAG
    writing       POST       /api/validate-yaml
                  POST       /api/KIND/NAME/preupload/REVISION
                  POST       /[KIND/]NAME.git/info/lfs/objects/batch
                  POST       /lfs/KIND/NAME/OID/verify
                  POST       /api/KIND/NAME/commit/REVISION
    storage       GET, PUT   /lfs/KIND/NAME/OID
                  PUT        /lfs/KIND/NAME/OID/PART, and POST /lfs/KIND/NAME/OID when all are there
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from hub_repositories import GITATTRIBUTES, Commit, File, RefusedError, Repository, metadata

if TYPE_CHECKING:
    from hub_server import Hub


class User(NamedTuple):
    """Who a token belongs to, and what it allows."""

    name: str
    role: str
    namespaces: tuple[str, ...]


class Answer(NamedTuple):
    """What is sent back: bytes, or anything that is JSON."""

    content: Any = b""
    status: int = 200
    headers: Mapping[str, str] = {}


@dataclass
class Request:
    """What a client asks: the path and the named parts of it, the query, headers and body, and who asks."""

    hub: "Hub"
    path: str
    parts: dict[str, str]
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    user: User | None

    def __getitem__(self, part: str) -> str:
        return self.parts[part]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_set(self, name: str) -> bool:
        """Whether something is wished for in the query."""
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")

    def known_user(self) -> User:
        """Who asks; someone must."""
        if self.user is None:
            raise self.unknown_user()
        return self.user

    def unknown_user(self) -> RefusedError:
        """What strangers are told, of what is not there and of what they may not see or do alike.

        The Hub's answer has no code; that it is about a repository, the client sees by the address, but only over
        https. So the code is here.
        """
        is_of_repository = re.match("/api/(models|datasets|spaces)/|.*/resolve/", self.path)
        return RefusedError(401, "Invalid username or password.", "RepoNotFound" if is_of_repository else "")

    def may_write(self, namespace: str) -> None:
        """Refuse those who may not write to a namespace."""
        if self.known_user().role != "write":
            raise RefusedError(403, "Forbidden: you must use a write token to upload to a repository.")
        if namespace not in self.user.namespaces:
            raise RefusedError(403, f"You don't have the rights to write under the namespace {namespace}")

    def repository(self, write: bool = False, files: bool = False) -> Repository:
        """The repository in question, for those who may see it, and may `write` to it or read its `files`."""
        repository = self.hub.repositories.get(((self["kind"] or "models").removesuffix("s"), self["name"]))
        namespace = self["name"].partition("/")[0]
        is_member = self.user is not None and namespace in self.user.namespaces
        if repository is None or (repository.private and not is_member):
            raise RefusedError(404, "Repository not found", "RepoNotFound") if self.user else self.unknown_user()
        if files and repository.gated and not is_member:
            message = f"Access to {repository.type} {repository.name} is restricted."
            raise RefusedError(403 if self.user else 401, message, "GatedRepo")
        if write:
            self.may_write(namespace)
        return repository

    def stored(self) -> Repository:
        """The repository of a signed address of the storage, which needs no token."""
        if self.query.get("signature", [""])[0] != self.hub.signed(self.path).rpartition("=")[2]:
            raise RefusedError(403, "The signature is not of this address")
        return self.hub.repositories[self["kind"].removesuffix("s"), self["name"]]

    def page(self, entries: list) -> Answer:
        """A page of a list, with a link to the next."""
        start = int(self.query.get("cursor", ["0"])[0])
        end = start + self.hub.page_size
        link = f"{self.hub.url}{self.path}?{urlencode(self.query | {'cursor': [end]}, doseq=True)}"
        return Answer(entries[start:end], headers={"Link": f'<{link}>; rel="next"'} if end < len(entries) else {})

    def ranged(self, content: bytes, headers: Mapping[str, str]) -> Answer:
        """A content, or the part of it that is asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return Answer(content, headers=headers)
        first, last = wanted.groups()
        start = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= end:
            raise RefusedError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
        return Answer(content[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


PIECES = {
    "repo": "/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)",
    "page": "/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)",
    "object": "/lfs/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)/(?P<oid>[0-9a-f]+)",
    "revision": "(?P<revision>[^/]+)",
    "path": "(?P<path>.+)",
}
# What answers to what.
ROUTES: list[tuple[str, re.Pattern, Callable[[Request], Any]]] = []


def route(method: str, pattern: str) -> Callable:
    """What a function answers to: it gets the request, and gives an `Answer` or what is sent as JSON."""

    def put(function: Callable[[Request], Any]) -> Callable[[Request], Any]:
        ROUTES.append((method, re.compile(pattern.format(**PIECES)), function))
        return function

    return put


@route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Any:
    name, role, (_, *organizations) = request.known_user()
    auth = {"type": "access_token", "accessToken": {"displayName": "token", "role": role}}
    return {"type": "user", "name": name, "fullname": name, "orgs": [{"name": o} for o in organizations], "auth": auth}


def named(request: Request) -> tuple[str, str]:
    """The type and the name of the repository that a body names."""
    asked = request.json
    return asked.get("type") or "model", f"{asked.get('organization') or request.known_user().name}/{asked['name']}"


@route("POST", "/api/repos/create")
def create_repository(request: Request) -> Any:
    (repo_type, name), asked = named(request), request.json
    namespace = name.partition("/")[0]
    request.may_write(namespace)
    private = asked.get("visibility") == "private" or asked.get("private", False)  # as clients say it, and said it
    repository = Repository(repo_type, name, private, sdk=asked.get("sdk"))
    url = f"{request.hub.url}/{repository.path}"
    if (repo_type, name) in request.hub.repositories:
        raise RefusedError(409, f"You already created this {repo_type} repo: {name}", url=url)
    repository.put("refs/heads/main", Commit({".gitattributes": File(GITATTRIBUTES)}, "initial commit", "", namespace))
    request.hub.repositories[repo_type, name] = repository
    return {"url": url, "name": name, "private": private}


@route("DELETE", "/api/repos/delete")
def delete_repository(request: Request) -> Any:
    repo_type, name = named(request)
    request.parts = {"kind": f"{repo_type}s", "name": name}
    request.repository(write=True)
    del request.hub.repositories[repo_type, name]


@route("GET", "{repo}(?:/revision/{revision})?")
def info(request: Request) -> Any:
    repository = request.repository()
    commit = repository.find(request["revision"] or "main")
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    if request.is_set("blobs"):
        for sibling in siblings:
            file = commit.files[sibling["rfilename"]]
            sibling |= {"blobId": file.oid, **file.described("sha256")}
    data, _, _ = metadata(commit.files.get("README.md", File(b"")).content.decode())
    what = {key: data[key] for key in ("library_name", "pipeline_tag") if key in data}
    licenses = [f"license:{data['license']}"] if "license" in data else []
    return {
        "id": repository.name,
        "author": repository.name.partition("/")[0],
        "sha": commit.id,
        "lastModified": commit.date,
        "createdAt": commit.history[-1].date,
        "private": repository.private,
        "gated": repository.gated,
        "tags": [*what.values(), *data.get("tags", []), *licenses],
        "siblings": siblings,
        "cardData": data,
        "sdk": repository.sdk,
        **what,
    }


@route("GET", "{repo}/tree/{revision}(?:/{path})?")
def tree(request: Request) -> Any:
    tree = request.repository().find(request["revision"]).tree
    below = f"{request['path']}/" if request["path"] else ""
    found = [path for path in tree if path.startswith(below)]
    if below and not found:
        raise RefusedError(404, f"{request['path']} does not exist", "EntryNotFound")
    if not request.is_set("recursive"):
        found = [path for path in found if "/" not in path.removeprefix(below)]
    return request.page([tree[path] for path in found])


@route("POST", "{repo}/paths-info/{revision}")
def paths_info(request: Request) -> Any:
    tree = request.repository().find(request["revision"]).tree
    return [tree[path] for path in parse_qs(request.body.decode()).get("paths", []) if path in tree]


@route("GET", "{repo}/commits/{revision}")
def commits(request: Request) -> Any:
    history = request.repository().find(request["revision"]).history
    texts = [{"id": commit.id, "title": commit.title, "message": commit.message} for commit in history]
    times = [{"date": commit.date, "authors": [{"user": commit.author}]} for commit in history]
    return request.page([one | other for one, other in zip(texts, times, strict=True)])


@route("GET", "{repo}/refs")
def refs(request: Request) -> Any:
    found = {"heads": [], "tags": [], "pr": []}
    for ref, commit in request.repository().refs.items():
        _, kind, name = ref.split("/", 2)
        found[kind].append({"name": name, "ref": ref, "targetCommit": commit.id})
    return {"branches": found["heads"], "tags": found["tags"], "converts": [], "pullRequests": found["pr"]}


@route("POST", "{repo}/(?P<what>branch|tag)/{revision}")
def create_ref(request: Request) -> Any:
    repository, asked = request.repository(write=True), request.json
    if request["what"] == "branch":
        name, ref, start = request["revision"], f"refs/heads/{request['revision']}", asked.get("startingPoint", "main")
    else:
        name, ref, start = asked["tag"], f"refs/tags/{asked['tag']}", request["revision"]
    if name.startswith("refs/"):
        raise RefusedError(400, f"Invalid reference: {name}")
    if ref in repository.refs:
        raise RefusedError(409, f"Reference already exists: {name}")
    repository.refs[ref] = repository.find(start)


@route("DELETE", "{repo}/(?P<what>branch|tag)/{revision}")
def delete_ref(request: Request) -> Any:
    repository = request.repository(write=True)
    ref = f"refs/{'heads' if request['what'] == 'branch' else 'tags'}/{request['revision']}"
    if ref == "refs/heads/main":
        raise RefusedError(403, "The main branch cannot be deleted")
    if ref not in repository.refs:
        raise RefusedError(404, f"Invalid rev id: {request['revision']}", "RevisionNotFound")
    del repository.refs[ref]


@route("GET", "{page}/resolve/{revision}/{path}")
def resolve(request: Request) -> Any:
    repository = request.repository(files=True)
    commit = repository.find(request["revision"])
    headers = {"X-Repo-Commit": commit.id}
    if (file := commit.files.get(request["path"])) is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound", headers)
    headers["ETag"] = f'"{file.etag}"'
    if not file.lfs:
        return request.ranged(file.content, headers)
    location = request.hub.signed(f"/lfs/{repository.type}s/{repository.name}/{file.sha256}")
    linked = {"Location": location, "X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(file.content))}
    return Answer(status=302, headers=headers | linked)


@route("POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Any:
    _, *said = metadata(request.json["content"])
    errors, warnings = ([{"message": message} for message in messages] for messages in said)
    return Answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@route("POST", "{repo}/preupload/{revision}")
def preupload(request: Request) -> Any:
    head = request.repository(write=not request.is_set("create_pr")).find(request["revision"])
    files = []
    for file in request.json["files"]:
        path = file["path"]
        is_large = request.hub.is_large(head, path, base64.b64decode(file["sample"]), file["size"])
        there = {"oid": head.files[path].etag} if path in head.files else {}
        files.append({"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, **there})
    return {"files": files}


@route("POST", "{page}\\.git/info/lfs/objects/batch")
def lfs_batch(request: Request) -> Any:
    request.known_user()
    asked, part_size = request.json, request.hub.part_size
    repository = request.repository(write="ref" in asked)  # a pull request, which anyone may make, names none
    transfer, objects = "basic", []
    for entry in asked["objects"]:
        path = f"/lfs/{repository.type}s/{repository.name}/{entry['oid']}"
        upload = {"href": request.hub.signed(path)}
        if entry["size"] > part_size and "multipart" in asked["transfers"]:
            numbers = range(1, -(-entry["size"] // part_size) + 1)
            parts = {str(number): request.hub.signed(f"{path}/{number}") for number in numbers}
            transfer, upload["header"] = "multipart", {"chunk_size": str(part_size), **parts}
        actions = {"actions": {"upload": upload, "verify": {"href": f"{request.hub.url}{path}/verify"}}}
        objects.append(entry if entry["oid"] in repository.objects else entry | actions)
    return {"transfer": transfer, "objects": objects}


def put(request: Request, content: bytes) -> Answer:
    """Put an object into the storage, if it is what its name says."""
    repository = request.stored()
    if hashlib.sha256(content).hexdigest() != request["oid"]:
        raise RefusedError(400, "The content is not what its hash says")
    repository.objects[request["oid"]] = content
    return Answer(headers={"ETag": f'"{request["oid"]}"'})


@route("PUT", "{object}")
def put_object(request: Request) -> Any:
    return put(request, request.body)


@route("PUT", "{object}/(?P<part>[0-9]+)")
def put_part(request: Request) -> Any:
    request.stored().parts[request["oid"], int(request["part"])] = request.body
    return Answer(headers={"ETag": f'"{hashlib.sha256(request.body).hexdigest()}"'})


@route("POST", "{object}")
def put_together(request: Request) -> Any:
    parts = request.stored().parts
    return put(
        request, b"".join(parts.get((request["oid"], part["partNumber"]), b"") for part in request.json["parts"])
    )


@route("POST", "{object}/verify")
def verify(request: Request) -> Any:
    content = request.repository().objects.get(request["oid"])
    if content is None or len(content) != request.json["size"]:
        raise RefusedError(404, "The object is not in the storage")


@route("GET", "{object}")
def get_object(request: Request) -> Any:
    return request.ranged(request.stored().objects[request["oid"]], {"ETag": f'"{request["oid"]}"'})


def changed(files: dict[str, File], objects: dict[str, bytes], operation: str, value: dict) -> dict[str, File]:
    """Files after one of the operations that a commit is made of."""
    path = value["path"]
    match operation:
        case "file":
            return files | {path: File(base64.b64decode(value["content"]))}
        case "lfsFile" if value["oid"] in objects:
            return files | {path: File(objects[value["oid"]], lfs=True)}
        case "lfsFile":
            raise RefusedError(400, f"The content of {path} was not uploaded")
        case "deletedFile":
            gone = files.keys() & {path}
        case "deletedFolder":
            gone = {each for each in files if each.startswith(f"{path.rstrip('/')}/")}
        case _:
            raise RefusedError(400, f"Unknown operation: {operation}")
    if not gone:
        raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
    return {each: file for each, file in files.items() if each not in gone}


@route("POST", "{repo}/commit/{revision}")
def commit(request: Request) -> Any:
    is_pull, user = request.is_set("create_pr"), request.known_user()
    repository = request.repository(write=not is_pull)
    head, ref = repository.find(request["revision"]), repository.ref(request["revision"])
    (_, header), *operations = ((line["key"], line["value"]) for line in map(json.loads, request.body.splitlines()))
    if not head.id.startswith(header.get("parentCommit", "")):
        raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
    number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
    if is_pull:
        ref = f"refs/pr/{number}"
    elif ref is None or ref.startswith("refs/tags/"):
        raise RefusedError(400, f"{request['revision']} is no branch")
    files = head.files
    for operation, value in operations:
        files = changed(files, repository.objects, operation, value)
    made = repository.put(ref, Commit(files, header["summary"], header.get("description", ""), user.name, head))
    url = f"{request.hub.url}/{repository.path}"
    pull = {"pullRequestUrl": f"{url}/discussions/{number}"} if is_pull else {}
    return {"success": True, "commitOid": made.id, "commitUrl": f"{url}/commit/{made.id}", "hookOutput": "", **pull}
