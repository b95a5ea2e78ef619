# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""docs/architecture.md: the arrows point one way, and the picture and the text are of the files that there are."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

from draw_architecture import FILES, boxes, shown_files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_vit_scratch"
# Each may import from those above it. In a line, modules and folders do not know each other.
ORDER = (
    ("additions", "merging", "publishing", "decoding_vivit"),
    ("configuration", "layers", "finite", "reading_vivit"),
    ("configuration_vivit", "layers_vivit", "image_processing_vivit"),
    ("initialization", "packing"),
    ("encoder",),
    ("pretrained",),
    ("inflation_vivit",),
    ("modeling", "modeling_vivit"),
    ("registration", "overrides", "presets", "system", "text", "tracing"),
    ("hub",),
    ("checkpoints", "data"),
    ("porting", "prediction"),
    ("evaluation", "inspection"),
    ("demo", "deployment", "training"),
    ("commands",),
    ("cli",),
)
OWN = "modeling_vit_scratch."
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}


def part(module: str) -> str:
    """The folder of a module, or its own name, as those have that travel."""
    return module.removeprefix("model.").split(".")[0].removesuffix("_scratch").removesuffix("_vit")


def imports(file: Path) -> set[str]:
    """The modules of the package that a file imports from, anywhere in it."""
    folder = file.parent.relative_to(PACKAGE).parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix(OWN) for name in node.names if name.name.startswith(OWN)}
        elif isinstance(node, ast.ImportFrom) and not node.level and f"{node.module}.".startswith(OWN):
            found |= {node.module.removeprefix(OWN)}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*folder[: len(folder) + 1 - node.level], *filter(None, [node.module])])
            places = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {base} if base and not PACKAGE.joinpath(*base.split(".")).is_dir() else places
    return found - {"__version__"}


MODULES = sorted(path for path in PACKAGE.rglob("[a-z]*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_those_before_it_only(file):
    own = part(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
    backwards = {name for name in map(part, imports(file)) if name != own and PLACE[name] >= PLACE[own]}
    assert not backwards


def test_the_picture_shows_the_files_that_there_are():
    files = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in MODULES)
    assert shown_files() == files
    text = " ".join(re.findall(r"\w+", " ".join(f"{box.title} {box.text}" for box in boxes())))
    assert {name.rpartition("/")[2] for name in files} <= set(text.split())
    with Image.open(ROOT / "docs" / "images" / "architecture.png") as picture:
        assert picture.info[FILES].split() == files  # else: python scripts/draw_architecture.py


@pytest.mark.parametrize("box", boxes(), ids=lambda box: box.title)
def test_the_text_of_a_box_ends_above_its_edge(box):
    lines = box.text.count("\n") + 1
    assert box.height >= 0.39 + 0.2 * lines


def test_every_file_that_the_text_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    there = {path.name for folder in (PACKAGE, ROOT / "scripts") for path in folder.rglob("*.py")}
    named = set(re.findall(r"`(?:[a-z_]+/)*([a-z]\w*\.py)`", text))
    assert len(named) > 40
    assert named <= there


def test_what_the_paths_of_pixel_and_label_name_is_where_they_say():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    steps = re.findall(r"`(\w+)`\s+\(`([a-z_]+/[a-z_]+\.py)`\)", text)
    assert len(steps) > 5
    for name, file in steps:
        assert re.search(rf"^(def|class) {name}\b", (PACKAGE / file).read_text(encoding="utf-8"), re.MULTILINE), name
