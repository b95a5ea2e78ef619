"""The picture of docs/architecture.md: the files of the package, and how data flows through them.

python scripts/draw_architecture.py [--output FILE]
"""

import argparse
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

PACKAGE = Path(__file__).resolve().parents[1] / "modeling_vit_scratch"
# Where the picture says which files it shows, so that a test sees whether it is of today's.
FILES = "Description"
TRAVELS = "model"
OURS, WORLD, LINE = "#eef3fb", "#fbf3da", "#35507a"
# That fit into a unit of width.
CHARACTERS = 10.5
# How far along an arrow its label stands.
LABELLED = 0.4


class Box(NamedTuple):
    """A part of the picture: its corner and size, in units of the picture, and what stands in it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str
    colour: str = OURS


class Flow(NamedTuple):
    """An arrow through some points, and what flows along it."""

    points: tuple[tuple[float, float], ...]
    what: str = ""


def modules(folder: str = "") -> list[str]:
    """The modules in a folder of the package, without those that only name it."""
    return sorted(path.stem for path in (PACKAGE / folder).glob("[a-z]*.py"))


def folders() -> list[str]:
    """The folders of the package."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def travelling() -> list[str]:
    """What every checkpoint carries, in the order in which a reader meets it."""
    order = [
        *("configuration", "layers", "additions", "encoder", "merging", "packing"),
        *("initialization", "inflation", "pretrained", "modeling", "decoding", "reading", "image", "publishing"),
    ]
    return sorted(modules(TRAVELS), key=lambda name: (order.index(name.split("_")[0]), name))


def shared() -> list[str]:
    """The modules that stand beside the folders."""
    return modules()


def shown_files() -> list[str]:
    """All files of the package that the picture shows."""
    return sorted([*modules(), *(f"{folder}/{name}" for folder in folders() for name in modules(folder))])


def boxes() -> list[Box]:
    """The parts of the picture, from what is on the disk today."""

    def folder(name: str, x: float, y: float, width: float, height: float, what: str) -> Box:
        listed = fill(", ".join(modules(name)), round(width * CHARACTERS), break_on_hyphens=False)
        return Box(x, y, width, height, f"{name}/", f"{what}\n\n{listed}" if what else listed)

    carried = "\n".join(f"{name}.py" for name in travelling())
    beside = ", ".join(f"{name}.py" for name in shared() if name != "cli")
    return [
        Box(0, 8.75, 16, 0.75, "cli.py → commands/", ", ".join(modules("commands"))),
        Box(0, 5.9, 2.0, 1.6, "images", "files, folders,\nparquet, shards,\nHub datasets", WORLD),
        folder("data", 2.6, 5.3, 3.0, 2.8, "images → batches"),
        folder("training", 6.2, 5.25, 3.4, 2.9, "recipe, batches, model → checkpoint"),
        Box(10.2, 5.7, 2.0, 2.0, "checkpoint", "weights,\nconfiguration,\nimage processor,\ncode, card, recipe", WORLD),
        folder("prediction", 12.9, 6.95, 3.1, 1.2, "what is on images"),
        folder("evaluation", 12.9, 5.6, 3.1, 1.25, "how often that is right"),
        folder("inspection", 12.9, 3.72, 3.1, 1.8, "what happens inside"),
        folder("demo", 12.9, 2.42, 3.1, 1.22, "a page in the browser"),
        folder("deployment", 12.9, 1.0, 3.1, 1.35, "one file that runs without torch"),
        Box(0, 1.9, 2.0, 1.5, "the Hub", "transformers, timm,\ntorchvision, JAX,\nlucidrains, ours", WORLD),
        folder("checkpoints", 2.6, 1.0, 3.0, 3.4, "weights of others, in and out"),
        Box(6.2, 0.95, 3.4, 3.88, "model/, which travels", carried),
        folder("tracing", 10.2, 1.0, 2.0, 1.4, "model → graph"),
        Box(0, 0, 7.5, 0.75, "beside them", beside),
        folder("system", 7.7, 0, 4.2, 0.75, ""),
        folder("hub", 12.1, 0, 3.9, 0.75, ""),
    ]


FLOWS = [
    Flow(((2.0, 6.7), (2.6, 6.7))),
    Flow(((5.6, 6.7), (6.2, 6.7))),
    Flow(((9.6, 6.7), (10.2, 6.7))),
    Flow(((12.2, 7.3), (12.9, 7.5))),
    Flow(((12.2, 6.5), (12.9, 6.3))),
    Flow(((12.2, 6.1), (12.9, 4.6))),
    Flow(((12.2, 5.9), (12.9, 3.0))),
    Flow(((11.9, 5.7), (12.9, 1.9))),
    Flow(((12.2, 1.6), (12.9, 1.6))),
    Flow(((2.0, 2.7), (2.6, 2.7)), "hub/"),
    Flow(((4.1, 4.4), (4.1, 4.98), (11.0, 4.98), (11.0, 5.7)), "porting.py"),
    Flow(((7.9, 4.83), (7.9, 5.25))),
    Flow(((9.6, 1.6), (10.2, 1.6))),
]


def draw() -> Figure:
    """The picture."""
    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = figure.subplots()
    for box in boxes():
        _draw_box(axes, box)
    for flow in FLOWS:
        axes.plot(*zip(*flow.points[:-1], strict=True), color=LINE, linewidth=1.6)
        arrow = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", flow.points[-1], flow.points[-2], arrowprops=arrow)
        (x, y), (next_x, _) = flow.points[1:3] if len(flow.points) > 2 else flow.points
        axes.text(x + LABELLED * (next_x - x), y + 0.05, flow.what, ha="center", va="bottom", fontsize=8.5, color=LINE)
    axes.set(xlim=(-0.1, 16.1), ylim=(-0.1, 9.6))
    axes.set_axis_off()
    return figure


def _draw_box(axes: Axes, box: Box) -> None:
    shape = FancyBboxPatch(
        (box.x, box.y), box.width, box.height, "round,pad=0,rounding_size=0.08", fc=box.colour, ec="#8aa0c0"
    )
    axes.add_patch(shape)
    lines = box.title.count("\n") + 1
    axes.text(box.x + 0.1, box.y + box.height - 0.08, box.title, va="top", fontsize=12, fontweight="bold")
    axes.text(box.x + 0.1, box.y + box.height - 0.12 - 0.27 * lines, box.text, va="top", fontsize=10, linespacing=1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the picture of docs/architecture.md.")
    parser.add_argument("--output", type=Path, default=Path("docs/images/architecture.png"))
    output = parser.parse_args().output
    draw().savefig(output, dpi=90, pil_kwargs={"optimize": True}, metadata={FILES: " ".join(shown_files())})
    print(output)


if __name__ == "__main__":
    main()
