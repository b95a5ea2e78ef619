# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""ViViT in transformers, model 1: which of its tensors is which of ours, and back.

Its checkpoints have the names that its models had before transformers 5, in memory it has others; both are read, and
those of today are written.
"""

from .tables import Rule, in_thirds, joined, positions, renames

BESIDE_BLOCKS = {
    "embeddings.cls_token": "cls_token.cls_token",
    "embeddings.patch_embeddings.projection.+": "tubelet_embedding.projection.+",
    "layernorm.+": "norm.+",
    "classifier.+": "classification_head.fc.+",
}
IN_MEMORY = {
    "layers.*.layernorm_before.+": "encoder.*.norm1.+",
    "layers.*.attention.o_proj.+": "encoder.*.attention.out_proj.+",
    "layers.*.layernorm_after.+": "encoder.*.norm2.+",
    "layers.*.mlp.fc1.+": "encoder.*.ff.0.+",
    "layers.*.mlp.fc2.+": "encoder.*.ff.2.+",
}
IN_FILES = {
    "encoder.layer.*.layernorm_before.+": "encoder.*.norm1.+",
    "encoder.layer.*.attention.output.dense.+": "encoder.*.attention.out_proj.+",
    "encoder.layer.*.layernorm_after.+": "encoder.*.norm2.+",
    "encoder.layer.*.intermediate.dense.+": "encoder.*.ff.0.+",
    "encoder.layer.*.output.dense.+": "encoder.*.ff.2.+",
}
RULES = (
    *renames(BESIDE_BLOCKS),
    positions("embeddings.position_embeddings", 1),
    *renames(IN_MEMORY),
    Rule(
        tuple(f"layers.*.attention.{part}_proj.+" for part in "qkv"),
        ("encoder.*.attention.in_proj.+",),
        joined,
        in_thirds,
    ),
    # Only to be read: what is written has the names above.
    *(Rule(rule.theirs, rule.ours, rule.read) for rule in renames(IN_FILES)),
    Rule(
        tuple(f"encoder.layer.*.attention.attention.{part}.+" for part in ("query", "key", "value")),
        ("encoder.*.attention.in_proj.+",),
        joined,
    ),
)
