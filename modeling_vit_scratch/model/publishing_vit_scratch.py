# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A checkpoint as a repository of the Hub: which of its files are published, and in which form.

A folder of a training run holds more than others should get: states of the optimizer, logs, the places of its data on
this machine. What goes out is `PUBLISHED`, with the card written for those who load it by its name on the Hub.
"""

import filecmp
import json
import logging
import re
import shutil
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelCardData,
    ModelInfo,
    metadata_load,
    snapshot_download,
)
from transformers import PreTrainedModel

CARD = "README.md"
PROCESSOR = "preprocessor_config.json"
RECIPE = "recipe.yaml"
SAMPLE = "sample.png"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
# They show images of the data, which are private until somebody says otherwise.
PICTURES = (SAMPLE, "training.png")
# What is told of the weights, besides the weights: of no use with others.
ABOUT_WEIGHTS = (CARD, *PICTURES, RECIPE, "all_results.json", "adapter/*")
PUBLISHED = ("config.json", *WEIGHTS, PROCESSOR, "*_vit_scratch.py", "*_vivit_scratch.py", *ABOUT_WEIGHTS)
# The name of a repository, with its owner.
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# The Hub's name for a license.
LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
LICENSE_TERMS = ("license", "license_name", "license_link")
# A file that a card calls its license is something else if it has another suffix, or more bytes.
LICENSE_SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".pdf")
LARGEST_LICENSE = 1_000_000
ADAPTER_CONFIG = "adapter/adapter_config.json"
# A file for an example where none may be shown, or there is none.
ANY_PHOTO = "photo.jpg"

logger = logging.getLogger(__name__)

PLAIN_CARD = """# {name}

A Vision Transformer{task}: depth {depth}, width {width}, {parameters:,} parameters. It is a `transformers` model: the
repository holds its weights (safetensors), configuration and code.

## Use

```python
{snippet}
```
{labels}
## Limits

How well it does is not known: {reason}. Measure it on images of your own before you rely on it.
"""


def terms_in(card: Path, repo_id: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """What a card says that holds for weights made of its own: the license, and the checkpoint on the Hub they are of.

    A card that is there and cannot be read is logged.

    Args:
        card: a README.md; what is missing, or cannot be read, says nothing.
        repo_id: of the card, if it is one of the Hub; its checkpoint is the one then.
        revision: branch, tag or commit of that.
    """
    said = {}
    if card.is_file():
        try:
            said = metadata_load(card) or {}
        except Exception:  # YAML's errors, and those of files; the model is whole without it
            logger.warning(f"the card {card} cannot be read: its license, if it has one, is not taken over")
    terms = {name: said[name] for name in ("base_model", *LICENSE_TERMS) if _is_text(said.get(name))}
    link = terms.pop("license_link", "")
    if _is_file_name(link):
        terms["license_link"] = link
        if repo_id is not None:  # a file of that repository
            terms["license_link"] = f"https://huggingface.co/{repo_id}/blob/{revision or 'main'}/{link}"
    elif isinstance(link, str) and re.fullmatch(r"https?://\S+", link):
        terms["license_link"] = link
    if repo_id is not None:
        terms["base_model"] = repo_id
    return terms


def _is_file_name(link: Any) -> bool:
    """Whether the link to a license names a file beside the card, and no hidden one."""
    return isinstance(link, str) and re.fullmatch(r"\w[\w.-]*", link) is not None


def license_file(folder: Path, terms: dict[str, Any]) -> Path | None:
    """The file that these terms call the license, if it is a regular one of the folder and no link out of it.

    Args:
        folder: of the card.
        terms: its own, as `terms_in` gives them.
    """
    link = terms.get("license_link", "")
    if not _is_file_name(link) or Path(link).suffix.lower() not in LICENSE_SUFFIXES:
        return None
    file = folder / link
    inside = file.is_file() and file.resolve().parent == folder.resolve()
    return file if inside and file.stat().st_size <= LARGEST_LICENSE else None


def copy_license(source: Path, terms: dict[str, Any], folder: Path) -> None:
    """Copy the file of a license beside a card that links to it, unless a file of that name is there.

    Args:
        source: the folder of the card that the terms are of.
        terms: as `terms_in` gives them.
        folder: the other one, in which everything else is written already.
    """
    file = license_file(source, terms)
    if file is not None and not (folder / file.name).exists():
        shutil.copyfile(file, folder / file.name)


def _is_text(value: Any) -> bool:
    """Whether a value is a text, or several: a model may be made of two."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


class Published(NamedTuple):
    """What became of a push."""

    repo_id: str
    commit: CommitInfo
    changed: bool  # otherwise the repository held just this already
    files: tuple[str, ...]
    num_bytes: int
    classifies: bool


def is_published(name: str) -> bool:
    """Whether a file of a checkpoint, named by its path in the folder, belongs into its repository."""
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in PUBLISHED)


def pictures_of(folder: Path) -> list[str]:
    """The files of a checkpoint that show images of the data."""
    return [name for name in PICTURES if (folder / name).is_file()]


def repository_files(folder: Path, repo_id: str, *, images: bool = False) -> dict[str, Path | bytes]:
    """The files of a repository, by name: those of a checkpoint, or what takes their place.

    Args:
        folder: of the checkpoint.
        repo_id: the repository.
        images: whether to publish the pictures that show images of the data.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files: dict[str, Path | bytes] = {name: folder / name for name in names if is_published(name)}
    if not images:
        for name in PICTURES:
            files.pop(name, None)
    files.pop(RECIPE, None)
    if CARD in files:
        card = (folder / CARD).read_text(encoding="utf-8")
        files[CARD] = card_for_the_hub(card, repo_id, files).encode()
        if file := license_file(folder, terms_in(folder / CARD)):
            files.setdefault(file.name, file)
        # The card's recipe names the data; the one of the run says where it lies on this machine.
        if recipe := re.search(rf"`{RECIPE}` is:\n\n```yaml\n(.*?)```", card, re.DOTALL):
            files[RECIPE] = recipe[1].encode()
    if ADAPTER_CONFIG in files:
        adapter = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        adapter["base_model_name_or_path"] = _base_model(folder)
        files[ADAPTER_CONFIG] = (json.dumps(adapter, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    return files


def _base_model(folder: Path) -> str | None:
    """The checkpoint that training began with, if others can get it."""
    return ModelCard.load(folder / CARD).data.base_model if (folder / CARD).is_file() else None


def card_for_the_hub(card: str, repo_id: str, files: Collection[str] = ()) -> str:
    """A card whose first Python block runs anywhere: it loads the repository and an image of it by their names.

    Args:
        card: of a checkpoint in a folder, or of another repository that it was fetched from.
        repo_id: the repository.
        files: what is published with it; the card shows no picture that is not among them.
    """
    shown = [name for name in PICTURES if name in files]

    def named(block: re.Match[str]) -> str:
        code = re.sub(r'(model=|from_pretrained\()"[^"]*"', rf'\1"{repo_id}"', block[0])
        code = re.sub(r'hf_hub_download\("[^"]*", ("[^"]*")\)', r"\1", code)
        code = code.replace("from huggingface_hub import hf_hub_download\n", "")
        if SAMPLE not in shown:
            return code.replace(f'"{SAMPLE}"', f'"{ANY_PHOTO}"')
        if f'"{SAMPLE}"' in code:
            code = code.replace(f'"{SAMPLE}"', f'hf_hub_download("{repo_id}", "{SAMPLE}")')
            code = code.replace("```python\n", "```python\nfrom huggingface_hub import hf_hub_download\n")
        return code

    card = re.sub(r"```python\n.*?```", named, card, count=1, flags=re.DOTALL)
    for name in PICTURES:
        if name not in shown:
            card = re.sub(rf"\n!\[[^\]]*\]\({name}\)\n", "", card)
    return card


def check_before(folder: Path, repo_id: str, *, images: bool, license: str | None) -> None:
    """Find what is wrong on this machine before a repository is made for it.

    Args:
        folder, repo_id, images, license: those of `publish`.

    Raises:
        ValueError: if the license is no name of the Hub's, or the header of the card cannot be read, with its place.
        OSError: if another file cannot be read.
    """
    if license is not None and not LICENSE_ID.fullmatch(license):
        raise ValueError(f"a license is named as the Hub names it, such as apache-2.0, got {license!r}.")
    if (folder / CARD).is_file():
        try:
            ModelCard((folder / CARD).read_text(encoding="utf-8"))
        except Exception as error:  # YAML's errors, and those of what the header should hold
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 2}" if mark is not None else ""  # the header begins after a line
            said = getattr(error, "problem", None) or " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"the header of {folder / CARD} cannot be read{place}: {said}.") from error
    repository_files(folder, repo_id, images=images)


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: bool | str | None = None,
    images: bool = False,
    license: str | None = None,
    plain: str = "",
    commit_message: str | None = None,
    commit_description: str | None = None,
) -> Published:
    """Publish a checkpoint in one commit, or in none if the repository holds just the same already.

    Weights that an interrupted push uploaded are not sent again. Files of earlier pushes that the checkpoint does not
    have go; what others put into the repository stays.

    Args:
        folder: of the checkpoint.
        repo_id: `owner/name`, or `name` for one of the token's owner; it is made if there is none.
        private: whether a new repository is private; by default as the owner's settings say.
        revision: a branch, which is made if there is none.
        create_pr: open a pull request instead.
        token: instead of the one that `hf auth login` or HF_TOKEN gave.
        images: whether to publish the pictures that show images of the data.
        license: for the card, by the Hub's name for it, such as "apache-2.0"; by default that of the card, or that
            which the repository had before.
        plain: the card of a checkpoint that has none.
        commit_message, commit_description: of the commit.

    Raises:
        ValueError: before anything is asked of the Hub, if the license is no name of the Hub's, or the card is broken.
        Exception: huggingface_hub's, of many kinds; nothing but uploaded weights has changed then.
    """
    check_before(folder, repo_id, images=images, license=license)
    (architecture,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    before = api.model_info(repo_id, revision=revision)
    if private and before.private is False:
        raise ValueError(f"{repo_id} is there already, and public: make it private in its settings on the Hub first")
    files = repository_files(folder, repo_id, images=images)
    files.setdefault(CARD, card_for_the_hub(plain, repo_id).encode())
    files[CARD] = _with_license(files[CARD], license, before)
    there = [sibling.rfilename for sibling in before.siblings or []]
    stale = [name for name in there if is_published(name) and name not in files]
    commit = api.create_commit(
        repo_id,
        [
            *(CommitOperationDelete(name) for name in stale),
            *(CommitOperationAdd(name, content) for name, content in files.items()),
        ],
        commit_message=commit_message or "Upload model",
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
        parent_commit=None if create_pr else before.sha,
    )
    num_bytes = sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in files.values())
    classifies = architecture.endswith("ForImageClassification")
    return Published(repo_id, commit, commit.oid != before.sha, tuple(files), num_bytes, classifies)


def _with_license(card: Path | bytes, license: str | None, repository: ModelInfo) -> bytes:
    """A card with this license; else with its own; else with that of the repository, written there perhaps."""
    text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
    changed = ModelCard(text)
    terms = {"license": license}
    if license is None:
        there = repository.card_data.to_dict() if repository.card_data is not None else {}
        terms = {name: there[name] for name in LICENSE_TERMS if name in there}
        if not terms or changed.data.get("license"):
            return text.encode()
    for name in LICENSE_TERMS:
        changed.data.pop(name, None)
    for name, value in terms.items():
        changed.data[name] = value
    return str(changed).encode()


def write_complete(
    model: PreTrainedModel, name: str, folder: Path, max_shard_size: int | str, tags: list[str] | None
) -> None:
    """Save a model with what belongs to it: the processor of the checkpoint that it was loaded from, and a card.

    The card, pictures and results of that checkpoint are those of its weights. Where the model's are others by now, it
    gets a plain card that claims nothing.

    Args:
        model: a model of this package.
        name: of the repository, over the card if that is a plain one.
        folder: where to.
        max_shard_size: of a file of weights.
        tags: more tags for the card.
    """
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    origin = _origin(model)
    reason = "nothing says on what it was trained"
    terms: dict[str, Any] = {}
    if origin is not None:
        source = str(model.name_or_path)
        terms = terms_in(origin / CARD, None if Path(source).is_dir() else source)
        same = _same_weights(folder, origin)
        if not same and (origin / CARD).is_file():
            reason = "its weights are not those of the checkpoint any more that it was loaded from"
        for pattern in (PROCESSOR, *(ABOUT_WEIGHTS if same else ())):
            for path in origin.glob(pattern):
                target = folder / path.relative_to(origin)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)
        copy_license(origin, terms, folder)
    card = folder / CARD
    if not card.is_file():
        has_processor = (folder / PROCESSOR).is_file()
        text = plain_card(name, model.config, model.num_parameters(), reason, has_processor, terms)
        card.write_text(text, encoding="utf-8")
    if tags:
        tagged = ModelCard.load(card)
        tagged.data.tags = [*(tagged.data.tags or []), *(tag for tag in tags if tag not in (tagged.data.tags or []))]
        tagged.save(card)


def _origin(model: PreTrainedModel) -> Path | None:
    """The folder that a model was loaded from; that of the cache, if it came from the Hub."""
    name = model.name_or_path or ""
    commit = getattr(model.config, "_commit_hash", None)
    of_the_hub = HUB_ID.fullmatch(name) is not None
    if name and Path(name).is_dir() and not (of_the_hub and commit):
        return Path(name)
    if not of_the_hub:
        return None  # made in Python, or of a folder that is gone
    return Path(snapshot_download(name, revision=commit, allow_patterns=list(PUBLISHED)))


def _same_weights(folder: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same weights, byte for byte, in the same files."""
    files, others = ({path.name for name in WEIGHTS for path in place.glob(name)} for place in (folder, other))
    return files == others and all(filecmp.cmp(folder / name, other / name, shallow=False) for name in files)


def _snippet(kind: str, classifies: bool, has_processor: bool) -> list[str]:
    """Python that loads a model of images or videos from the current folder and uses it.

    It is text for those who read the card; none of it is run here. Whether the code of the repository may run, they say
    themselves by pasting it.
    """
    auto = f"AutoModelFor{kind.capitalize()}Classification" if classifies else "AutoModel"
    load = f'model = {auto}.from_pretrained(".", trust_remote_code=True)'
    if not has_processor:
        return [f"from transformers import {auto}", "", load]
    result = "logits = {}.logits" if classifies else "output = {}"
    if kind == "video":  # whose processor is code of the repository, too, and reads files itself
        given, trusted, first = '"clip.mp4"', ", trust_remote_code=True", []
    else:
        given, trusted, first = f'Image.open("{ANY_PHOTO}")', "", ["from PIL import Image"]
    return [
        *first,
        f"from transformers import AutoImageProcessor, {auto}",
        "",
        f'processor = AutoImageProcessor.from_pretrained("."{trusted})',
        load,
        result.format(f'model(**processor({given}, return_tensors="pt"))'),
    ]


def plain_card(
    name: str,
    config: Any,
    num_parameters: int,
    reason: str,
    has_processor: bool = True,
    terms: dict[str, Any] | None = None,
) -> str:
    """A card for weights of which nothing was measured.

    Args:
        name: of the repository, with or without its owner.
        config: of the model, with `architectures` as they are when it is saved.
        num_parameters: of the model.
        reason: why nothing is known of it, as a clause.
        has_processor: whether an image processor lies beside the model.
        terms: those of the weights that it was made of, as `terms_in` gives them.
    """
    (architecture,) = config.architectures
    kind = "video" if architecture.startswith("ViViT") else "image"
    classifies = architecture.endswith(f"For{kind.capitalize()}Classification")
    lines = _snippet(kind, classifies, has_processor)
    labels = list(config.id2label.values()) if classifies else []
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=f"{kind}-classification" if classifies else f"{kind}-feature-extraction",
        tags=["vit-scratch", "vision-transformer"],
        **terms or {},
    )
    text = PLAIN_CARD.format(
        name=name.rpartition("/")[2],
        task=f" for {kind} classification" if classifies else "",
        depth=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=num_parameters,
        snippet="\n".join(lines),
        labels=f"\nIts labels, in the order of the logits: {', '.join(labels)}.\n" if labels else "",
        reason=reason,
    )
    return f"---\n{metadata}\n---\n\n{text}"
