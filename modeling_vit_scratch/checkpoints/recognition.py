# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which lineage a checkpoint is of, by the names of its tensors; and what it is, where it is none of ours."""

import re
from collections.abc import Iterable

from ..checkpoints import article, google, huggingface, lucidrains, ours, timm, torchvision
from .files import Source
from .lineage import Lineage
from .tables import pattern_of

LINEAGES: dict[str, Lineage] = {
    module.LINEAGE.name: module.LINEAGE
    for module in (ours, huggingface, timm, torchvision, google, article, lucidrains)
}
# Those whose tensors have a prefix at times: of the body beside a head, of the parameters beside other things.
PREFIXED = (ours.LINEAGE, huggingface.LINEAGE, google.LINEAGE)
# Names by which others are known, in the order of how much they say.
STRANGERS = {
    r"lora_[AB]": "it is an adapter (LoRA), not a model: merge it into its model first",
    r"relative_position|rel_pos": "it has relative positions",
    r"rope|rotary|inv_freq": "it has rotary positions (RoPE)",
    r"window|downsample\.reduction|layers\.\d+\.blocks\.": "its attention is in windows, as Swin's",
    r"\.gamma_1$|q_norm|k_norm|attn\.norm\.|lambda_q1|scale_norm": "its blocks have parts that a plain ViT's lack",
    r"attns\.\d+\.|ffns\.\d+\.": "its blocks have parallel branches",
    r"conv_root|gn_root|patch_embed\.backbone": "it is a hybrid, with a ConvNet before the transformer",
    r"dwconv|conv_dw|depthwise|^(layer1|stages|features|conv1)\.": "it is a ConvNet",
    r"running_mean": "it has batch normalisation",
    r"embed_tokens|wte\.|word_embeddings|lm_head": "it is a language model",
}


def recognise(source: Source, name: str | None = None) -> Lineage:
    """The lineage of a source, or the one that was named.

    Raises:
        ValueError: if it is of none, or not of that name.
    """
    if name is not None and name not in LINEAGES:
        raise ValueError(f"there is no format {name!r}; the formats are {', '.join(LINEAGES)}.")
    stranger = what_it_is(source.shapes)
    if stranger is not None:
        raise ValueError(f"{source.path} is no plain ViT: {stranger}.")
    for lineage in LINEAGES.values() if name is None else [LINEAGES[name]]:
        found = [_found(source, item) for item in lineage.signature]
        if all(found):
            if lineage not in PREFIXED and found[0] != lineage.signature[0]:
                raise ValueError(
                    f"{source.path} has {found[0]} where the format {lineage.name} has {lineage.signature[0]}: it is "
                    f"part of another model, or wrapped."
                )
            return lineage
    if name is not None:
        lacking = next(item for item in LINEAGES[name].signature if not _found(source, item))
        raise ValueError(f"{source.path} is not of the format {name}: it has no tensor {lacking}.")
    kind = source.config.get("model_type") or source.config.get("architecture")
    raise ValueError(
        f"{source.path} is of none of the formats that vit-scratch knows ({', '.join(LINEAGES)}): "
        f"{f'its config.json says {kind}, and ' if kind else ''}its tensors have names such as "
        f"{', '.join(list(source.shapes)[:3])}."
    )


def _found(source: Source, name: str) -> str | None:
    """The tensor of this name, or the first with something in front of it; None if there is neither."""
    pattern = re.compile(r"(.*[./])?" + pattern_of(name).pattern)
    return name if name in source.shapes else next((key for key in source.shapes if pattern.fullmatch(key)), None)


def what_it_is(names: Iterable[str]) -> str | None:
    """What a checkpoint with these tensors is if it is no plain ViT, as a clause; None if nothing tells."""
    names = list(names)
    for pattern, clause in STRANGERS.items():
        for name in names:
            if re.search(pattern, name):
                return f"{clause} ({name})"
    return None
