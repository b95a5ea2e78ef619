"""timm: what follows from the name of an architecture alone, of all its Vision Transformers."""

import json
import re
from pathlib import Path
from typing import Any

import torch

FILE = "timm_architectures.json"
PREFIXES = ("vit_", "deit", "flexivit")
COLUMNS = (
    *("width", "heads", "eps", "activation"),
    *("class_token", "registers", "distillation", "positions"),
    *("pooling", "norm", "image_size", "patch_size"),
)
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
INNER_NORM = re.compile(r"^patch_embed\.norm|^blocks\.\d+\.(attn|mlp)\.\w*norm")
ONE_BLOCK_MORE = re.compile(r"\.\d+\.")


def write(folder: Path) -> Path:
    """Write the table: a row for each plain architecture, and for each of the others how its weights tell.

    A plain one is a ViT of the usual blocks. Of the others, `has` is the first tensor that no plain one has, or `lacks`
    one that every plain one has; neither, if only the name tells that it is none.
    """
    import timm
    from timm.models import _registry

    modules = _registry._model_to_module
    names = [
        name
        for name in sorted(timm.list_models())
        if modules[name] in ("vision_transformer", "deit") or name.startswith(PREFIXES)
    ]
    rows: dict[str, list[Any]] = {}
    keys: dict[str, list[str]] = {}
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name)
        keys[name] = list(model.state_dict())
        if is_plain(model):
            rows[name] = row(model)
    plain_keys = {ONE_BLOCK_MORE.sub(".*.", key) for name in rows for key in keys[name]}
    common = set.intersection(*(set(keys[name]) for name in rows))
    others = {name: telltale(keys[name], plain_keys, common) for name in names if name not in rows}
    parts = [
        f'"timm": {json.dumps(timm.__version__)}',
        f'"columns": {json.dumps(COLUMNS)}',
        f'"plain": {_lines(rows)}',
        f'"others": {_lines(others)}',
    ]
    (folder / FILE).write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")
    return folder / FILE


def is_plain(model: torch.nn.Module) -> bool:
    """Whether a model of timm is a ViT as the paper has it, but for what our configuration can say."""
    from timm.layers import Attention, AttentionPoolLatent, GluMlp, LayerNorm, LayerScale, Mlp, PatchEmbed
    from timm.layers import activations as timm_activations
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import Block, VisionTransformer
    from torch import nn

    of_timm = (VisionTransformer, VisionTransformerDistilled, PatchEmbed, Block, Attention, Mlp, GluMlp, LayerNorm)
    others = (AttentionPoolLatent, nn.Sequential, nn.Linear, nn.Conv2d, nn.Dropout, nn.Identity, nn.GELU, nn.SiLU)
    activations = (timm_activations.GELU, timm_activations.GELUTanh, timm_activations.QuickGELU)
    usual = {*of_timm, *others, *activations, LayerScale}
    return (
        {type(module) for module in model.modules()} <= usual
        and not any(INNER_NORM.search(key) for key in model.state_dict())
        and not (model.global_pool == "map" and model.pool_include_prefix)
    )


def row(model: torch.nn.Module) -> list[Any]:
    """What there is to know of a plain model, in the order of `COLUMNS`."""
    block = model.blocks[0]
    gated = type(block.mlp).__name__ == "GluMlp"
    if gated and (type(block.mlp.act).__name__ != "SiLU" or block.mlp.gate_last):
        raise ValueError("a gate of another kind than SwiGLU")
    norms = [name for name in ("norm", "fc_norm") if not isinstance(getattr(model, name), torch.nn.Identity)]
    return [
        model.embed_dim,
        block.attn.num_heads,
        block.norm1.eps,
        "swiglu" if gated else ACTIVATIONS[type(block.mlp.act).__name__],
        model.has_class_token,
        model.num_reg_tokens,
        hasattr(model, "dist_token"),
        model.pos_embed.shape[1],
        model.global_pool,
        norms[0] if norms else None,
        model.patch_embed.img_size[0],
        model.patch_embed.patch_size[0],
    ]


def telltale(keys: list[str], plain_keys: set[str], common: set[str]) -> dict[str, str]:
    """By which tensor the weights of an architecture tell that it is not plain."""
    strange = [key for key in keys if ONE_BLOCK_MORE.sub(".*.", key) not in plain_keys]
    lacking = sorted(common - set(keys))
    return {"has": strange[0]} if strange else {"lacks": lacking[0]} if lacking else {}


def _lines(rows: dict[str, Any]) -> str:
    """An object with one entry a line."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in rows.items()) + "\n}"
