# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A folder that is ready to be a Hub Space: the page of `demo`, the checkpoint, and the code that both need."""

import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData
from packaging.requirements import Requirement
from packaging.version import Version

from ..hub.cards import inherited
from ..hub.fetching import CONFIGURATIONS, SAFETENSORS
from ..model.publishing_vit_scratch import LICENSE_TERMS, SAMPLE, copy_license
from ..presets import PACKAGE, shipped_path
from ..system.folders import check_new_folder, new_folder
from ..text import for_markdown
from .demo_page import example_files, load_answers

APP = '''"""The page of an image classifier, written by `vit-scratch demo --space`.

To see it before it is published: pip install gradio=={gradio} -r requirements.txt, and python app.py.
"""

import sys
from pathlib import Path

from modeling_vit_scratch.cli import main

HERE = Path(__file__).resolve().parent

command = [
    "demo",
    {checkpoint},
{flags}    "--examples",
    *sorted(map(str, (HERE / "examples").glob("*.png"))),
]
sys.exit(main(command))
'''


def write_space(
    checkpoint: str,
    output: str,
    *,
    title: str | None = None,
    examples: Sequence[str] = (),
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[str]:
    """Write the Space of a checkpoint, whole or not at all.

    A checkpoint on this machine is copied, but for what only its training needs; one on the Hub is fetched by the Space
    itself. Examples are written anew, without what cameras note in photographs.

    Args:
        checkpoint, precision, token_merging, revision, trust_remote_code: those of `load_checkpoint`, for the Space,
            too.
        output: a new folder.
        title: the name over the page; by default that of the checkpoint.
        examples: image files to try it with; the checkpoint's own `sample.png`, an image of the data, only if it is
            named.

    Returns:
        What to know: what was written, and how it is published.

    Raises:
        ValueError: if the checkpoint will not do, an example cannot be read, or `output` cannot be written.
    """
    check_new_folder(output)
    options: dict[str, Any] = {
        "precision": precision,
        "token_merging": token_merging,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    # So that what is wrong with it is said now, and not by a Space that does not start.
    answers = load_answers(checkpoint, title=title, **options)
    source = answers.classifier.checkpoint
    hub_id, options["revision"] = source.hub_id, source.commit  # the Space shows what was looked at here
    with new_folder(output) as folder:
        _write_code(folder)
        shown = [Path(file).name for file in example_files(examples, folder / "examples")]
        if hub_id is None:
            _copy_checkpoint(source.place, folder / "checkpoint", code=trust_remote_code)
        (folder / "app.py").write_text(_app(answers.title, hub_id, options), encoding="utf-8")
        packages = _requirements("onnx" if precision == "int8" else "")
        (folder / "requirements.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
        terms = inherited(source)
        (folder / "README.md").write_text(_card(answers.title, hub_id, terms), encoding="utf-8")
        copy_license(source.place, terms, folder)
    sample = source.place / SAMPLE
    withheld = hub_id is None and sample.is_file() and not any(name.endswith(f" {SAMPLE}") for name in shown)
    return [
        f"written    {output}",
        *([f"left out   {SAMPLE}, which shows one of your images: --examples {sample} publishes it"] * withheld),
        *([f"examples   {', '.join(shown)}: delete from {output}/examples what is not for everyone"] if shown else []),
        f"publish    hf upload OWNER/NAME {output} --repo-type space",
    ]


def _app(title: str, hub_id: str | None, options: dict[str, Any]) -> str:
    flags = [f"--title={title}", f"--precision={options['precision']}"]
    for name in ("token_merging", "revision"):
        if options[name] is not None:
            flags.append(f"--{name}={options[name]}")
    if options["trust_remote_code"]:
        flags.append("--trust_remote_code")
    return APP.format(
        gradio=version("gradio"),
        checkpoint='str(HERE / "checkpoint")' if hub_id is None else json.dumps(hub_id, allow_nan=False),
        # As JSON, a text is one of Python, too.
        flags="".join(f"    {json.dumps(flag, ensure_ascii=False, allow_nan=False)},\n" for flag in flags),
    )


def _write_code(folder: Path) -> None:
    """This package as a wheel would hold it: it is in no registry from which a Space could install it."""
    package = folder / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    if not (package / "configuration").exists():  # in a checkout they lie beside the package
        shutil.copytree(shipped_path("configuration"), package / "configuration")
        shutil.copy(shipped_path("model_card.md"), package)
    text = distribution("vit-scratch").read_text("licenses/LICENSE")
    if text is not None:
        (package / "LICENSE").write_text(text, encoding="utf-8")


def _copy_checkpoint(source: Path, target: Path, *, code: bool) -> None:
    """What it takes to load a checkpoint, and its code if that is to run; nothing of its training or this machine."""
    target.mkdir()
    for pattern in [*CONFIGURATIONS, *SAFETENSORS, *(["*.py"] if code else [])]:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a path of this machine, which older versions of transformers wrote
    (target / "config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def _requirements(extra: str) -> list[str]:
    """The packages that this one needs, in the versions that are installed here; the Space has gradio anyway."""
    needed = [Requirement(line) for line in distribution("vit-scratch").requires or []]
    names = [item.name for item in needed if item.marker is None or item.marker.evaluate({"extra": extra})]
    # Without the part behind a plus sign, which says where a build comes from.
    return [f"{name}=={Version(version(name)).public}" for name in names]


def _card(title: str, hub_id: str | None, terms: dict[str, Any]) -> str:
    metadata = SpaceCardData(
        title=title,
        emoji="🔎",
        colorFrom="indigo",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        models=None if hub_id is None else [hub_id],
        **{name: terms[name] for name in LICENSE_TERMS if name in terms},
    )
    what = "the checkpoint in `checkpoint/`" if hub_id is None else f"[{hub_id}](https://huggingface.co/{hub_id})"
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n# {for_markdown(title)}\n\n"
        f"An image classifier to try out: {what}, with its attention laid over the image.\n"
    )
