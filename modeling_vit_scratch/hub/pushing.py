# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Publishing on the Hub: with checks before, patience meanwhile, and a sentence for what went wrong."""

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of whichever library of HTTP the client uses
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..finite import check_weights
from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.publishing_vit_scratch import (
    CARD,
    HUB_ID,
    PROCESSOR,
    Published,
    check_before,
    pictures_of,
    plain_card,
    publish,
)

STATE = "trainer_state.json"  # transformers' name, in a checkpoint from which training can go on
# Seconds to wait before another attempt, if the server does not say how long, and the most if it does.
WAITS = (1.0, 5.0, 20.0)
LONGEST_WAIT = 120.0
# Too slow, changed by another meanwhile (409, 412), too much at once; and all from 500 on.
WORTH_ANOTHER_ATTEMPT = {408, 409, 412, 429}
T = TypeVar("T")


def push(
    checkpoint: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    images: bool = False,
    license: str | None = None,
    token: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Published:
    """Publish a checkpoint as a repository on the Hub: in one commit, or in none where nothing has changed.

    An interrupted push changes nothing there, and the next one does not send again what had arrived.

    Args:
        checkpoint: the folder of one of our checkpoints.
        repo_id, private, revision, create_pr, images, license, token: those of `publish`.
        say: is told, in a sentence, which pictures are left out, before anything is sent; and why it is tried again.

    Raises:
        ValueError: one sentence: what the checkpoint lacks, or why it could not be published.
    """
    folder = Path(checkpoint)
    if not HUB_ID.fullmatch(repo_id if "/" in repo_id else f"owner/{repo_id}"):
        raise ValueError(
            f"the name of a repository is owner/name or name, of letters, digits, - _ and ., got {repo_id!r}."
        )
    plain = _checked(folder, repo_id)
    check_before(folder, repo_id, images=images, license=license)
    pictures = [] if images else pictures_of(folder)
    if pictures:
        show, them = ("show", "them") if len(pictures) > 1 else ("shows", "it")
        command = f"vit-scratch push {shlex.quote(str(checkpoint))} {repo_id} --images"
        say(f"left out {' and '.join(pictures)}, which {show} your images; `{command}` publishes {them}.")

    def attempt() -> Published:
        return publish(
            folder,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token,
            images=images,
            license=license,
            plain=plain,
            commit_message=f"Upload {folder.resolve().name} with vit-scratch",
        )

    return _with_patience(attempt, f"{checkpoint} is not published", repo_id, say)


def push_lines(published: Published, revision: str | None = None) -> list[str]:
    """What became of a push, for a person.

    Args:
        published: what became of it.
        revision: the branch that was pushed to, if it is not the one that everybody gets.
    """
    repo_id, commit = published.repo_id, published.commit
    if commit.pr_url is not None:
        what = f"proposed   {commit.pr_url}"
    else:
        what = f"{'published ' if published.changed else 'unchanged '} {commit.repo_url}"
    use = f"use        vit-scratch predict {repo_id} IMAGES"
    if not published.classifies:
        use = f"fine-tune  vit-scratch train finetune --model {repo_id} --data LABELLED"
    return [
        f"{what}, commit {commit.oid[:7]}: {len(published.files)} files, {published.num_bytes / 1e6:,.1f} MB",
        *([use] if revision in (None, "main") and commit.pr_url is None else []),
    ]


def make_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Make a repository, if there is none, and tell its full name, before hours are spent on what is to go there.

    Raises:
        ValueError: if it cannot be written.
    """

    def attempt() -> str:
        api = HfApi(token=token)
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and api.model_info(name).private is False:
            raise ValueError("it is there already, and public: make it private in its settings on the Hub first")
        return name

    return _with_patience(attempt, f"{repo_id} cannot be published to", repo_id)


def _with_patience(
    attempt: Callable[[], T], problem: str, repo_id: str, say: Callable[[str], None] = lambda sentence: None
) -> T:
    for wait in (*WAITS, None):
        try:
            return attempt()
        except Exception as failure:  # the libraries below raise many kinds
            wrapped = isinstance(failure, RuntimeError)  # as what happens while a file is uploaded is
            error = failure.__cause__ if wrapped and isinstance(failure.__cause__, Exception) else failure
            pause = _pause(error, wait)
            if pause is None:
                raise ValueError(f"{problem}: {_why_not(repo_id, error)}.") from error
            say(f"{_why_not(repo_id, error)}; another attempt in {pause:.0f} s.")
            time.sleep(pause)
    raise AssertionError


def _pause(error: Exception, wait: float | None) -> float | None:
    """Seconds after which an attempt may succeed that failed now, if any."""
    if wait is None or isinstance(error, OfflineModeIsEnabled):
        return None
    if not isinstance(error, HfHubHTTPError):
        # A connection that was lost, or an answer of a server in between that is not the Hub's.
        return wait if isinstance(error, HTTPError | ConnectionError | TimeoutError | json.JSONDecodeError) else None
    status = error.response.status_code
    if status not in WORTH_ANOTHER_ATTEMPT and status < 500:
        return None
    asked = error.response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdecimal() else wait


def _why_not(repo_id: str, error: Exception) -> str:
    """Why something could not be published, as a clause that says what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is not to be asked (HF_HUB_OFFLINE is set)"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        what = "does not know the token" if get_token() else "needs to know who you are"
        return f"the Hub {what}: log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return (
            f"the token may not write to {repo_id}: name a repository of your own, or make a token with the role "
            "write in the settings of your account"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the Hub's {repo_id} has no such revision"
    if status == 404:
        return f"the Hub has no {repo_id} that this token may write to"
    if status in (409, 412):
        return f"{repo_id} was changed by somebody else meanwhile"
    if status == 429:
        return "the Hub had too many requests of yours for now"
    if status is not None and status >= 500:
        return f"the Hub has a problem of its own (status {status})"
    if status is None and isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return "the connection to the Hub failed"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _checked(folder: Path, repo_id: str) -> str:
    """Look whether a folder is one of our checkpoints, and whole; the card for it, if it has none.

    Raises:
        ValueError: naming what it lacks.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder} is no checkpoint: its config.json is missing or broken.") from error
    if kind != ViTScratchConfig.model_type:
        raise ValueError(
            f"{folder} is a checkpoint of type {kind}, not {ViTScratchConfig.model_type}: make it one with "
            f"`vit-scratch import {folder} OUT`, and push that."
        )
    auto_map = settings.get("auto_map") or {}
    code = _with_imports(folder, {entry.partition(".")[0] for entry in auto_map.values()})
    lacking = [name for name in sorted({PROCESSOR, *code}) if not (folder / name).is_file()]
    if lacking or not {"AutoConfig", "AutoModel"} <= auto_map.keys():
        what = lacking[0] if lacking else "the auto_map in its config.json"
        how = "save the image processor" if what == PROCESSOR else "load the model and save it again"
        raise ValueError(
            f"{folder} lacks {what}, without which others cannot use it: {how} there with save_pretrained."
        )
    num_parameters = _count_weights(folder)
    if (folder / CARD).is_file():
        return ""
    config = ViTScratchConfig.from_pretrained(folder)
    reason = "nothing says on what it was trained"
    if (folder / STATE).is_file():
        step = json.loads((folder / STATE).read_text(encoding="utf-8")).get("global_step")
        reason = f"it was saved in the middle of its training, after step {step}, before it was measured"
    return plain_card(repo_id, config, num_parameters, reason)


def _with_imports(folder: Path, modules: set[str]) -> set[str]:
    """The files of some modules of a folder, and of those of its modules that they import."""
    files: set[str] = set()
    while modules:
        name = f"{modules.pop()}.py"
        if name not in files:
            files.add(name)
            text = (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else ""
            modules |= set(re.findall(r"^from \.(\w+) import", text, re.MULTILINE))
    return files


def _count_weights(folder: Path) -> int:
    """How many weights a checkpoint has; they are read one tensor at a time.

    Raises:
        ValueError: if a file is missing or broken, they are not in safetensors, or one is NaN or infinite.
    """
    count = 0

    def counted() -> Iterator[tuple[str, Tensor]]:
        nonlocal count
        for name, weight in _weights(folder):
            count += weight.numel()
            yield name, weight

    check_weights(counted(), f"the checkpoint {folder}")
    return count


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    index = folder / "model.safetensors.index.json"
    try:
        names: set[Any] = {"model.safetensors"}
        if index.is_file():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        for name in sorted(names):
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # not a dict
                    yield key, file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, LookupError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{folder} has no whole weights in safetensors: {said}.") from error
