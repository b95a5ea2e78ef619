# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A dry run as a table for people, as JSON, and as a page."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from html import escape

from .dry_run import DryRun, Layer, folded

COLUMNS = ("step", "layer", "in → out", "parameters", "multiply-adds", "activations", "time", "share")
LEFT = 3  # so many columns have text, the others numbers
LEGEND = (
    "Multiply-adds: of matrix products and convolutions. Activations: what training keeps of a layer for the backward "
    "pass, but for dropout. Time: of one pass, the median of several; what a layer does besides its parts belongs "
    "to none of them."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 0.35rem 0.5rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
small { color: #777; display: block; }
tr.part td { color: #666; border-bottom: none; }
tr.part td:nth-child(2) { padding-left: 1.8rem; }
tr.whole td { font-weight: 600; border-top: 2px solid #222; }
.bar { min-width: 8rem; }
.bar::before { content: ""; float: left; margin-top: 0.35em; height: 0.8em; width: calc(0.6 * var(--share));
  background: #7ba7dd; }
"""


def words(shape: Sequence[int], num_patches: int, num_classes: int | None) -> str:
    """What the sides of a shape are."""
    if len(shape) == 4:
        return "(batch, channels, height, width)"
    if len(shape) == 3:
        return f"(batch, {'patches' if shape[1] == num_patches else 'tokens'}, width)"
    return f"(batch, {'classes' if shape[-1] == num_classes else 'width'})" if len(shape) == 2 else ""


class Described:
    """A dry run with every number as people read it.

    Args:
        run: what was measured.
        full: show each layer, instead of those that repeat as one.
    """

    def __init__(self, run: DryRun, full: bool = False):
        self.run = run
        self.layers = run.layers if full else folded(run.layers)

    @property
    def title(self) -> str:
        """What ran on what."""
        batch, _, height, width = self.run.whole.shape_in
        images = f"{batch} image{'s' if batch > 1 else ''} of {height}x{width} pixels"
        return f"{self.run.model} on {images} ({self.run.device}, {self.run.dtype})"

    @property
    def notes(self) -> list[str]:
        """What to know of the numbers."""
        in_use = self.run.in_use
        notes = [LEGEND]
        if self.run.merges:
            notes.append(
                "Blocks merge patches, between their attention and the rest. After the last one each patch gets the "
                "vector of the token that it is in, so that all tokens come back."
            )
        if in_use is self.run.whole:
            return notes
        less = (
            "In use and in training the last block computes only what the head reads; in all that takes "
            f"{count(in_use.multiply_adds)} multiply-adds, {size(in_use.activation_bytes)} and "
            f"{duration(in_use.seconds)}."
        )
        return [*notes, less]

    def in_words(self, layer: Layer) -> str:
        """The shapes of a layer in words."""
        ends = (words(shape, self.run.num_patches, self.run.num_classes) for shape in (layer.shape_in, layer.shape_out))
        return " → ".join(ends)

    def cells(self, layer: Layer, is_part: bool = False) -> tuple[str, ...]:
        """A row of the table."""
        name = f"{layer.path.rpartition('.')[2]}: {layer.name}" if is_part else layer.name
        return (
            "" if is_part or layer.step is None else str(layer.step),
            f"{name} × {layer.count}" if layer.count > 1 else name,
            f"{layer.shape_in} → {layer.shape_out}",
            count(layer.parameters),
            count(layer.multiply_adds),
            size(layer.activation_bytes),
            duration(layer.seconds),
            f"{self.run.share(layer):.1%}",
        )


def count(number: int) -> str:
    """A number as people read it: 768, 1,538, 85.80 M, 17.56 G."""
    for unit, name in ((10**9, "G"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number:,}" if number else "–"


def size(num_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB" if num_bytes else "–"


def duration(seconds: float) -> str:
    """A time as people read it."""
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def as_text(run: DryRun, full: bool = False) -> str:
    """A table in a terminal; the shapes in words stand below those in numbers."""
    described = Described(run, full)
    rows: list[tuple[str, ...]] = [COLUMNS]
    for layer in [*described.layers, run.whole]:
        rows += [described.cells(layer), ("", "", described.in_words(layer), *[""] * (len(COLUMNS) - LEFT))]
        for part in layer.parts:
            step, name, *others = described.cells(part, is_part=True)
            rows.append((step, f"  {name}", *others))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    line = "─" * max(map(len, lines))
    lines[1:1], lines[-2:-2] = [line], [line]
    return "\n".join([described.title, "", *lines, "", *described.notes])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if index < LEFT else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def as_json(run: DryRun, full: bool = False) -> str:
    """All that was measured, in plain units."""
    described = Described(run, full)

    def record(layer: Layer) -> dict[str, object]:
        fields = dataclasses.asdict(layer) | {"shapes_in_words": described.in_words(layer), "share": run.share(layer)}
        return fields | {"parts": [record(part) for part in layer.parts]}

    head = {"model": run.model, "device": run.device, "dtype": run.dtype}
    body = {"layers": [record(layer) for layer in described.layers], "whole": record(run.whole)}
    return json.dumps(head | body | {"in_use": record(run.in_use)}, indent=2, allow_nan=False)


def as_html(run: DryRun, full: bool = False) -> str:
    """A page that needs nothing but itself, in which the share of the time is a bar."""
    described = Described(run, full)

    def row(layer: Layer, kind: str) -> str:
        cells = [escape(cell) for cell in described.cells(layer, is_part=kind == "part")]
        if kind != "part":
            cells[2] += f"<small>{escape(described.in_words(layer))}</small>"
        *others, share = cells
        bar = f'<td class="bar" style="--share: {100 * run.share(layer):.1f}%">{share}</td>'
        return f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in others) + bar + "</tr>"

    rows = []
    for layer in described.layers:
        rows += [row(layer, "step"), *(row(part, "part") for part in layer.parts)]
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    title = escape(described.title)
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>',
            f"<style>{STYLE}</style>\n<h1>Dry run</h1>\n<p>{title}</p>",
            f"<div><table>\n<tr>{head}</tr>",
            *rows,
            row(run.whole, "whole"),
            "</table></div>",
            *(f"<p>{escape(note)}</p>" for note in described.notes),
            "</html>",
        ]
    )


FORMATS: dict[str, Callable[[DryRun, bool], str]] = {"text": as_text, "json": as_json, "html": as_html}
