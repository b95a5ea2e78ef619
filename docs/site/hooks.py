# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What MkDocs does besides: the README as the first page, a page for each public class, links that leave the docs."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Functions that look inside a model; they are imported from where they are.
INSPECTION = {
    "inspection.dry_run": ("dry_run",),
    "inspection.explaining": ("explain",),
    "inspection.relevance": ("relevance_map", "occlusion"),
    "inspection.attention": ("attention_map", "attention_rollout", "attention_distance"),
    "inspection.embeddings": ("patch_filters", "position_similarity"),
}


def public_names() -> dict[str, str]:
    """What the package offers: name -> the module in which it is defined."""
    package = ROOT / "modeling_vit_scratch"
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    names = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {alias.name: f"modeling_vit_scratch.{node.module}" for alias in node.names}
    for module, functions in INSPECTION.items():
        names |= dict.fromkeys(functions, f"modeling_vit_scratch.{module}")
    return names


def on_files(files: Files, config) -> Files:
    """Add the pages that are made of what is in the repository anyway."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    names = public_names()
    for name, module in names.items():
        files.append(File.generated(config, f"reference/{name}.md", content=f"::: {module}.{name}\n"))
    rows = [f"- [{name}]({name}.md), in `{module}`" for name, module in names.items()]
    text = "# Reference\n\nMade of the docstrings.\n\n" + "\n".join(rows) + "\n"
    files.append(File.generated(config, "reference/index.md", content=text))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Name what a link leads to in the repository, where that is no page of the site."""

    def link(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target.partition("#")[0]))
        if files.get_file_from_path(place) is not None or target.startswith(("#", "http")):
            return match[0]
        if place == "../README.md":
            return f"[{text}]({target.replace('README.md', 'index.md').removeprefix('../')})"
        return f"{text} (`{place.replace('../', '')}`)"

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, markdown)
