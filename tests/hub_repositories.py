# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the Hub of hub_server.py keeps: repositories with their histories, and the cards in them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

import yaml  # huggingface_hub needs it, too

LARGE_FILES = """*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy
*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.xz
*.zip *.zst *tfevents* *.bmp *.gif *.jpeg *.jpg *.png *.tiff *.webp"""
GITATTRIBUTES = re.sub(r"(\S+)\s*", r"\1 filter=lfs diff=lfs merge=lfs -text\n", LARGE_FILES).encode()


class RefusedError(Exception):
    """What the Hub refuses to do, with the status of HTTP, the code and the message that the client looks at.

    Args:
        more: what is in the answer beside the message.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] = {}, **more: Any):
        super().__init__(message)
        self.status = status
        self.content = {"error": message, **more}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


def git_id(kind: str, content: bytes) -> str:
    """The id that git gives an object."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


@dataclass(frozen=True)
class File:
    """The content of a file, and whether it lies in the storage, with a pointer to it in git."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return pointer.encode() if self.lfs else self.content

    @cached_property
    def oid(self) -> str:
        return git_id("blob", self.in_git)

    @property
    def etag(self) -> str:
        """What clients compare with the hash of a file of theirs."""
        return self.sha256 if self.lfs else self.oid

    def described(self, hash_name: str) -> dict:
        """Size and hash; the Hub calls the latter differently at different places."""
        lfs = {hash_name: self.sha256, "size": len(self.content), "pointerSize": len(self.in_git)}
        return {"size": len(self.content)} | ({"lfs": lfs} if self.lfs else {})


@dataclass(frozen=True, eq=False)
class Commit:
    """All files at a point of a history. Its id derives from them, its texts and its parent, and not from the time."""

    files: dict[str, File]
    title: str
    message: str = ""
    author: str = "hub"
    parent: "Commit | None" = None
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")

    @cached_property
    def id(self) -> str:
        files = [f"{file.oid} {path}" for path, file in sorted(self.files.items())]
        lines = [*files, self.parent.id if self.parent else "", self.title, self.message]
        return git_id("commit", "\n".join(lines).encode())

    @property
    def history(self) -> list["Commit"]:
        """This commit and those before it."""
        history = [self]
        while history[-1].parent:
            history.append(history[-1].parent)
        return history

    @cached_property
    def tree(self) -> dict[str, dict]:
        """Files and folders as the Hub describes them, by path."""
        tree, contents = {}, {}
        for path, file in self.files.items():
            tree[path] = {"type": "file", "path": path, "oid": file.oid, **file.described("oid")}
            for folder in list(PurePosixPath(path).parents)[:-1]:
                contents.setdefault(str(folder), []).append(f"{file.oid} {path}")
        for folder, lines in contents.items():
            oid = git_id("tree", "\n".join(sorted(lines)).encode())
            tree[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
        return dict(sorted(tree.items()))

    def takes_as_large(self, path: str) -> bool:
        """Whether .gitattributes sends a file of that name into the storage."""
        rules = self.files.get(".gitattributes", File(GITATTRIBUTES)).content.decode().splitlines()
        patterns = [rule.split()[0] for rule in rules if "filter=lfs" in rule]
        return any(fnmatch(path if "/" in pattern else path.rpartition("/")[2], pattern) for pattern in patterns)


@dataclass
class Repository:
    """A model, a dataset or a Space: its settings, its refs by full name, and what lies in the storage for it."""

    type: str
    name: str
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    sdk: str | None = None
    refs: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where its page is, below the address of the Hub."""
        return self.name if self.type == "model" else f"{self.type}s/{self.name}"

    def ref(self, revision: str) -> str | None:
        """The full name of a branch or tag, if there is such."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def find(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request or the beginning of an id."""
        if ref := self.ref(revision):
            return self.refs[ref]
        found = [commit for id, commit in self.commits.items() if len(revision) >= 7 and id.startswith(revision)]
        if len(found) != 1:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def put(self, ref: str, commit: Commit) -> Commit:
        """Let a ref point to a new commit."""
        self.refs[ref] = self.commits[commit.id] = commit
        return commit


# --- The card --------------------------------------------------------------------------------------------------------

# What the metadata of a README.md may be: a type, a list of such, a mapping with all that it needs, or one or a list.
RESULT = {"task": {"type": str}, "dataset": {"type": str, "name": str}, "metrics": [{"type": str, "value": object}]}
METADATA = {
    **dict.fromkeys(["base_model", "datasets", "language", "license", "metrics"], (str, [str])),
    **dict.fromkeys(["library_name", "license_link", "license_name", "pipeline_tag", "sdk"], str),
    "model-index": [{"name": str, "results": [RESULT]}],
    "tags": [str],
}
NAMES = {str: "a string", list: "an array", dict: "of type object"}


def mistakes(value: Any, shape: Any, name: str) -> Iterator[str]:
    """What is wrong with a value, each in the words of the Hub."""
    if isinstance(shape, tuple):
        yield from mistakes(value, shape[isinstance(value, list)], name)
    elif not isinstance(value, kind := shape if isinstance(shape, type) else type(shape)):
        yield f'"{name}" must be {NAMES[kind]}'
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            yield from mistakes(item, shape[0], f"{name}[{index}]")
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            place = f"{name}.{key}"
            yield from mistakes(value[key], inner, place) if key in value else [f'"{place}" is required']


def metadata(card: str) -> tuple[dict, list[str], list[str]]:
    """The metadata of a README.md, what is wrong with it, and what is only worth a warning."""
    block = re.match(r"\s*---\r?\n(.*?)\r?\n?---(\r?\n|$)", card, re.DOTALL)
    try:
        data = yaml.safe_load(block[1]) if block else None
    except yaml.YAMLError as error:
        return {}, [" ".join(str(error).split())], []
    if data is None:
        return {}, [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return {}, ['"metadata" must be of type object'], []
    known = [key for key in METADATA if key in data]
    return data, [mistake for key in known for mistake in mistakes(data[key], METADATA[key], key)], []
