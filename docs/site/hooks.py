# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What MkDocs does besides: the README as the first page, a page for each public class, links that leave the docs."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# What the verbs do, for who does it in Python; it is imported from where it is.
IN_PYTHON = {
    "data.dataset_loading": ("load_images", "load_unlabelled"),
    "data.images": ("read_image",),
    "training.recipes": ("parse_recipe",),
    "training.classification": ("train",),
    "training.pretraining": ("pretrain",),
    "hub.checkpoint": ("load_checkpoint",),
    "prediction.classifier": ("predict", "Classifier", "Prediction"),
    "prediction.table": ("predict_table",),
    "evaluation.scoring": ("evaluate",),
    "evaluation.results": ("SplitResults",),
    "evaluation.metrics": ("outcome_of", "compute_metrics", "per_class_report", "confusion_matrix", "most_confused"),
    "porting": ("import_checkpoint", "export_checkpoint"),
    "deployment.file_export": ("export_classifier",),
    "hub.pushing": ("push",),
    "inspection.dry_run": ("dry_run", "DryRun"),
    "inspection.explaining": ("explain", "Explanation"),
    "inspection.relevance": ("relevance_map", "occlusion"),
    "inspection.attention": ("attention_map", "attention_rollout", "attention_distance"),
    "inspection.embeddings": ("patch_filters", "position_similarity"),
}


def public_names() -> dict[str, str]:
    """What the package offers: name -> the module in which it is defined."""
    package = ROOT / "modeling_vit_scratch"
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    names = {}
    for node in (node for block in tree.body if isinstance(block, ast.If) for node in block.body):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {alias.name: f"modeling_vit_scratch.{node.module}" for alias in node.names}
    return names


def in_python() -> dict[str, str]:
    """The names of `IN_PYTHON`: name -> module."""
    return {name: f"modeling_vit_scratch.{module}" for module, names in IN_PYTHON.items() for name in names}


STYLE = """
.wy-nav-content { max-width: 1200px; }
.wy-table-responsive table td, .wy-table-responsive table th { white-space: normal; font-size: 85%; padding: 6px 8px; }
"""


def legend(module: str) -> str:
    """What the letters of shapes stand for in a module, as its docstring says; nothing if it has none."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return next((part for part in docstring.split("\n\n") if part.startswith("Shapes:")), "")


def on_files(files: Files, config) -> Files:
    """Add the pages that are made of what is in the repository anyway."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    files.append(File.generated(config, "style.css", content=STYLE))
    text = "# Reference\n\nMade of the docstrings.\n"
    for title, names in (("The model", public_names()), ("What the verbs do, in Python", in_python())):
        text += f"\n## {title}\n\n"
        for name, module in names.items():
            content = f"::: {module}.{name}\n\n{legend(module)}\n"
            files.append(File.generated(config, f"reference/{name}.md", content=content))
            text += f"- [{name}]({name}.md), in `{module}`\n"
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
