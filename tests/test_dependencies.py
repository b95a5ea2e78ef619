# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""pyproject.toml declares what is imported, and constraints.txt pins what it declares."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from test_private_interfaces import INTERFACES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Where the module is not called as its distribution is.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
# What these need at run time, and import themselves.
NOT_IMPORTED = {
    "jinja2": "huggingface_hub, for cards",
    "onnxscript": "torch, for exports to ONNX",
    "tensorboard": "transformers, for accounts of runs",
}
# What scripts of ours compare the package with: who runs them installs it.
PEERS = {"flax", "jax", "ml_collections", "optax", "scipy", "timm", "torchvision", "vit_pytorch"}


def declared(*lines: str) -> dict[str, Requirement]:
    requirements = map(Requirement, lines)
    return {canonicalize_name(item.name): item for item in requirements if item.name != "vit-scratch"}


NEEDED = declared(*PROJECT["dependencies"])
OPTIONAL = declared(*(line for extra, lines in EXTRAS.items() if extra not in ("docs", "test") for line in lines))
EVERYTHING = {**NEEDED, **OPTIONAL, **declared(*EXTRAS["test"], *EXTRAS["docs"])}


def imported(folder: str) -> set[str]:
    """The distributions that files below a folder import, anywhere in them."""
    files = list((ROOT / folder).rglob("*.py"))
    names = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
    own = {"modeling_vit_scratch", "golden", *(path.stem for path in [*ROOT.glob("scripts/*"), *ROOT.glob("tests/*")])}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names - own - sys.stdlib_module_names}


def test_the_package_imports_what_it_declares_and_declares_what_it_imports():
    assert imported("modeling_vit_scratch") == (NEEDED.keys() | OPTIONAL.keys()) - NOT_IMPORTED.keys()


@pytest.mark.parametrize("folder", ["tests", "scripts", "docs"])
def test_what_else_imports_is_declared_too(folder):
    assert imported(folder) - set(map(canonicalize_name, PEERS)) <= EVERYTHING.keys()


def test_every_declared_version_is_pinned_to_one_that_is_allowed():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pins = {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}
    build = declared(*tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"])
    for name, requirement in {**build, **EVERYTHING}.items():
        assert pins[name] in requirement.specifier, requirement


def test_a_library_whose_private_names_are_used_has_a_newest_version():
    libraries = {interface.owner.split(".")[0] for interface in INTERFACES} - sys.stdlib_module_names
    for name in libraries:
        assert any(bound.operator == "<" for bound in NEEDED[name].specifier), NEEDED[name]
