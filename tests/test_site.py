# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The docs as a site: it builds without a warning, and has a page for all that is public."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import modeling_vit_scratch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "docs" / "site" / "mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


def in_python() -> list[tuple[str, str]]:
    """What the site's reference has besides: module, name."""
    return [
        (module, name)
        for name, module in runpy.run_path(str(ROOT / "docs" / "site" / "hooks.py"))["in_python"]().items()
    ]


@pytest.mark.parametrize(
    ("module", "name"), [*(("modeling_vit_scratch", name) for name in modeling_vit_scratch.__all__), *in_python()]
)
def test_each_public_name_has_a_page_of_its_docstring(site, module, name):
    first = getattr(importlib.import_module(module), name).__doc__.split("\n")[0].split(":")[0].split("`")[0].strip()
    text = re.sub(r"<[^>]+>", "", page(site, f"reference/{name}"))
    assert first in text.replace("&gt;", ">").replace("&#39;", "'").replace("&amp;", "&")


def test_a_page_says_what_the_letters_of_shapes_stand_for(site):
    assert "D embedding dimension" in page(site, "reference/PatchEmbedding")


def test_the_readme_is_the_first_page_and_its_links_lead_to_pages(site):
    text = page(site, ".")
    assert 'href="walkthrough/"' in text
    assert 'src="images/digits.png"' in text
    for target in re.findall(r'href="([a-z]+/)(?:#[^"]*)?"', text):
        assert (site / target / "index.html").is_file(), target


def test_a_link_that_leaves_the_docs_names_the_file(site):
    assert "<code>tests/hub_server.py</code>" in page(site, "hub")


def test_the_site_loads_nothing_from_elsewhere(site):
    for file in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?://[^"]*)"', file.read_text("utf-8"))
        assert not loaded, (file, loaded)
