# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The page on which the pictures of `explain` stand side by side."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: 0; flex: 1 1 16rem; max-width: 26rem; }
figure.wide { max-width: 40rem; flex-basis: 30rem; }
img { width: 100%; }
figcaption { color: #666; font-size: 0.9em; }
"""
# Of an image: the file, what it shows, and whether it needs room.
PICTURES = (
    ("patches.png", "What the model sees, cut into patches.", False),
    ("rollout.png", "Attention rollout: what was mixed into the answer most, for it or against it.", False),
    ("relevance.png", "Relevance: what speaks for the class.", False),
    (
        "attention.png",
        "The attention to the patches of what the head reads, by block and head; each map goes from its own lowest "
        "number (dark) to its highest (bright).",
        True,
    ),
    ("distance.png", "How far each head looks, by the depth of its block.", True),
)


def write_page(
    path: Path, title: str, sections: Sequence[tuple[str, str, str]], of_model: Sequence[tuple[str, str]]
) -> None:
    """Write the page.

    Args:
        path: the file.
        title: the name of the model.
        sections: of each image its name, what the model says of it, and the folder of its pictures.
        of_model: the pictures of the model itself, with what they show.
    """
    parts = [
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>",
    ]
    for name, said, folder in sections:
        parts.append(f"<h2>{escape(name)}</h2>\n<p>{escape(said)}</p>\n<div class='row'>")
        parts += [_figure(f"{folder}/{file}", caption, wide) for file, caption, wide in PICTURES]
        parts.append("</div>")
    parts.append("<h2>The model itself</h2>\n<div class='row'>")
    parts += [_figure(file, caption, True) for file, caption in of_model]
    parts.append("</div>\n</html>\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def _figure(file: str, caption: str, wide: bool) -> str:
    kind = ' class="wide"' if wide else ""
    text = escape(caption)
    return f'<figure{kind}><img src="{quote(file)}" alt="{text}"><figcaption>{text}</figcaption></figure>'
