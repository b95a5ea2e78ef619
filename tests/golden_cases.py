"""Checkpoints that the other libraries made, with what they computed from them: one folder of tests/golden each.

A folder holds the checkpoint (`model.*`, and for some a `config.json`), `case.json` with the facts that the checkpoint
does not say, and `expected.safetensors`. `scripts/make_golden.py` makes them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modeling_vit_scratch import ViTScratchForImageClassification
from modeling_vit_scratch.checkpoints import Imported, read_checkpoint

ROOT = Path(__file__).parent / "golden"
# Images by the size that the cases know them by: what the model was made for, and two others.
IMAGES = load_file(ROOT / "inputs.safetensors")


def cases(lineage: str) -> list[str]:
    """The names of a lineage's cases."""
    found = sorted(folder.name for folder in (ROOT / lineage).iterdir() if folder.is_dir())
    assert found, f"no cases of {lineage}"
    return found


def checkpoint(lineage: str, case: str) -> Path:
    """The folder of a case if its checkpoint is one with a `config.json`, else the file."""
    folder = ROOT / lineage / case
    return folder if (folder / "config.json").is_file() else next(folder.glob("model.*"))


def facts(lineage: str, case: str) -> dict[str, Any]:
    """What must be told beside the checkpoint, as `config_overrides`."""
    return json.loads((ROOT / lineage / case / "case.json").read_text("utf-8"))["facts"]


def imported(lineage: str, case: str, **options) -> Imported:
    """A case as the import makes it; `options` go to `read_checkpoint`."""
    return read_checkpoint(checkpoint(lineage, case), **{"config_overrides": facts(lineage, case), **options})


@torch.no_grad()
def outputs(model, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a model computes from images of any size, under the names of the expected outputs."""
    options = {"output_hidden_states": True, "interpolate_pos_encoding": True}
    has_head = isinstance(model, ViTScratchForImageClassification)
    body = model.vit if has_head else model
    base = body(pixel_values, **options)
    found = {
        "hidden_states": torch.stack(base.hidden_states),
        "last_hidden_state": base.last_hidden_state,
        "pooled": base.pooler_output,
    }
    return {**found, "logits": model(pixel_values, **options).logits} if has_head else found


def differences(lineage: str, case: str) -> dict[str, float]:
    """Import a case and run it: for each size and output, such as "trained.logits", how far it is from the expected.

    The largest difference, relative to the largest value; infinite if the shapes differ.
    """
    model = imported(lineage, case).model
    expected = load_file(ROOT / lineage / case / "expected.safetensors")
    found = {
        f"{size}.{name}": tensor
        for size in sorted({name.split(".")[0] for name in expected})
        for name, tensor in outputs(model, IMAGES[size]).items()
    }
    assert any(name.endswith(".logits") for name in found) == any(name.endswith(".logits") for name in expected)
    return {name: relative(found[name], tensor) for name, tensor in expected.items()}


def relative(tensor: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value; infinite if the shapes differ."""
    if tensor.shape != expected.shape:
        return float("inf")
    return float((tensor - expected).abs().max() / expected.abs().max())
