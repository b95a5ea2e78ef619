"""Google's two repositories in JAX, `vision_transformer` and `big_vision`, and the `.npz` files that they write."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from golden.common import (
    MLP_WIDTH,
    NUM_CLASSES,
    NUM_HEADS,
    PATCH_SIZE,
    SIZES,
    WIDTH,
    Case,
    draw,
    generator_of,
    outputs_of,
)

WIDE = {"image_size": list(SIZES["wide"])}
ZOOMED_WIDE = "scipy.ndimage.zoom, as the function for squares calls it"
INITIALIZED_WIDE = {"wide": "a model that was initialised with an image of this size"}


def open_checkout(folder: Path) -> None:
    """Make the packages of a checkout importable; tensorflow, with which they read remote files, may be missing."""
    importlib.import_module("flax.training.checkpoints")  # looks for tensorflow, and must not find the stand-in
    sys.path.insert(0, str(folder))
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
        for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile"):
            sys.modules[name] = ModuleType(name)
        sys.modules["tensorflow"].io = sys.modules["tensorflow.io"]
        sys.modules["tensorflow.io"].gfile = sys.modules["tensorflow.io.gfile"]


def kind_of(path: tuple[str, ...]) -> str:
    """The kind of a parameter, from its name."""
    last = path[-1]
    if last == "bias":
        return "token" if path[0] == "embedding" else "bias"
    if last == "kernel":
        return "patches" if path[0] == "embedding" else "weight"
    return {"scale": "scale", "probe": "probe", "cls": "token", "pos_embedding": "token"}[last]


def fan_in_of(path: tuple[str, ...], shape: tuple[int, ...]) -> int:
    """Inputs of each output; queries, keys and values are (inputs, heads, width), and scanned blocks are stacked."""
    shape = shape[1:] if "encoderblock" in path else shape
    return shape[0] if path[-2] in ("query", "key", "value") else int(np.prod(shape[:-1]))


def random_parameters(model, size: str, name: str) -> dict:
    """Random parameters for a model that was initialised with an image of a size."""
    import flax
    import jax

    image = jax.ShapeDtypeStruct((1, *SIZES[size], 3), np.float32)
    shapes = jax.eval_shape(lambda image: model.init(jax.random.key(0), image, train=False), image)["params"]
    generator, flat = generator_of(name), {}
    for path, leaf in sorted(flax.traverse_util.flatten_dict(shapes).items()):
        fan_in = fan_in_of(path, leaf.shape) if path[-1] == "kernel" else 1
        flat[path] = draw(generator, kind_of(path), leaf.shape, fan_in)
    return flax.traverse_util.unflatten_dict(flat)


def watch(model, parameters: dict, image: np.ndarray):
    """The output of a model, and a list of (module, input, output) of all its modules, in the order they returned."""
    import flax.linen as nn

    seen = []

    def note(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            seen.append((context.module, args[0], output))
        return output

    with nn.intercept_methods(note):
        output = model.apply({"params": parameters}, image.transpose(0, 2, 3, 1), train=False)
    return output, seen


# --- vision_transformer ----------------------------------------------------------------------------------------------


def run_vision_transformer(model, parameters: dict, image: np.ndarray) -> dict[str, np.ndarray]:
    logits, seen = watch(model, parameters, image)
    blocks = [(before, after) for module, before, after in seen if type(module).__name__ == "Encoder1DBlock"]
    (last,) = (after for module, _, after in seen if module.name == "encoder_norm")
    (pooled,) = (before for module, before, _ in seen if module.name == "head")
    return outputs_of([blocks[0][0], *(after for _, after in blocks)], last, pooled, logits)


# The released files are older than flax's linen, which numbers the modules of each class on their own.
RELEASED_NAMES = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}


def with_released_names(parameters: dict) -> dict:
    """Parameters under the names of the released files, from which `checkpoint.load` comes back to the given ones."""
    import flax
    from flax.training import checkpoints

    flat = flax.traverse_util.flatten_dict(parameters)
    renamed = flax.traverse_util.unflatten_dict(
        {tuple(RELEASED_NAMES.get(part, part) for part in path): value for path, value in flat.items()}
    )
    loaded = flax.traverse_util.flatten_dict(flax.core.unfreeze(checkpoints.convert_pre_linen(renamed)))
    if loaded.keys() != flat.keys() or any(loaded[path] is not flat[path] for path in flat):
        raise ValueError("flax does not read the released names as the current ones.")
    return renamed


def zoomed_wide(positions: np.ndarray) -> np.ndarray:
    """Positions (1, N, D) of the trained square for the wide image, by the call that both repositories make."""
    import scipy.ndimage

    old, new = ([side // PATCH_SIZE for side in SIZES[size]] for size in ("trained", "wide"))
    grid = np.asarray(positions).reshape(*old, -1)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    return scipy.ndimage.zoom(grid, zoom, order=1).reshape(1, new[0] * new[1], -1)


def vision_transformer_cases(images: dict[str, np.ndarray], checkout: Path) -> Iterator[Case]:
    """The cases of google-research/vision_transformer, from a checkout of it."""
    import flax
    import ml_collections

    open_checkout(checkout)
    checkpoint = importlib.import_module("vit_jax.checkpoint")
    models_vit = importlib.import_module("vit_jax.models_vit")
    peer = f"google-research/vision_transformer, flax {flax.__version__}"
    variants = {
        "token": ("trained", 2, {}),
        "representation": ("trained", 1, {"representation_size": 6}),
        "gap": ("trained", 1, {"classifier": "gap"}),
        "wide": ("wide", 1, {}),
    }
    for name, (size, depth, changes) in variants.items():
        model = models_vit.VisionTransformer(
            num_classes=NUM_CLASSES,
            patches=ml_collections.ConfigDict({"size": (PATCH_SIZE, PATCH_SIZE)}),
            transformer={"num_layers": depth, "num_heads": NUM_HEADS, "mlp_dim": MLP_WIDTH},
            hidden_size=WIDTH,
            **changes,
        )
        parameters = random_parameters(model, size, f"vision_transformer/{name}")
        outputs = {size: run_vision_transformer(model, parameters, images[size])}
        sizes, facts = {"trained": "apply"}, {}
        if size == "wide":
            sizes, facts = INITIALIZED_WIDE, WIDE
        else:
            has_token = changes.get("classifier") != "gap"
            num_tokens = int(np.prod(SIZES["larger"])) // PATCH_SIZE**2 + has_token
            flat = flax.traverse_util.flatten_dict(parameters, sep="/")
            key = "Transformer/posembed_input/pos_embedding"
            trained = flat[key]
            resampled = {
                "larger": checkpoint.interpolate_posembed(trained, num_tokens, has_token),
                "wide": np.concatenate((trained[:, :has_token], zoomed_wide(trained[:, has_token:])), axis=1),
            }
            for other, positions in resampled.items():
                resized = flax.traverse_util.unflatten_dict({**flat, key: positions}, sep="/")
                outputs[other] = run_vision_transformer(model, resized, images[other])
            sizes |= {"larger": "checkpoint.interpolate_posembed", "wide": ZOOMED_WIDE}

        # One case has the names that the code of today gives.
        tree = parameters if name == "wide" else with_released_names(parameters)

        def save(folder: Path, tree: dict = tree) -> None:
            np.savez(folder / "model.npz", **checkpoint._flatten_dict(tree))

        yield Case("vision_transformer", name, peer, save, outputs, sizes, facts)


# --- big_vision ------------------------------------------------------------------------------------------------------


def run_big_vision(model, parameters: dict, image: np.ndarray) -> dict[str, np.ndarray]:
    (_, out), seen = watch(model, parameters, image)
    (first,) = (before for module, before, _ in seen if type(module).__name__ == "Encoder")
    blocks = [value["+mlp"] for name, value in sorted(out["encoder"].items()) if name.startswith("block")]
    return outputs_of([first, *blocks], out["encoded"], out["pre_logits"], out.get("logits"))


def beside_a_text_tower(parameters: dict, name: str) -> dict:
    """A model of images and texts, of which the given parameters are the images'; the rest is made up."""
    generator = generator_of(f"{name}/txt")

    def noise(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    text = {"Embed_0": {"embedding": noise(7, WIDTH)}, "pos_embedding": noise(1, 4, WIDTH)}
    return {"params": {"img": parameters, "txt": text, "t": noise(1), "b": noise(1)}}


def in_training(parameters: dict) -> dict:
    """What a training run writes: parameters, the state of the optimiser, and the clock."""
    import jax
    import optax

    state = jax.tree.map(lambda value: value + 1, optax.trace(0.9).init(parameters))
    return {"params": parameters, "opt": (state,), "chrono": {"accum_train_time": np.float64(60.0)}}


def big_vision_cases(images: dict[str, np.ndarray], checkout: Path) -> Iterator[Case]:
    """The cases of google-research/big_vision, from a checkout of it."""
    import flax
    import jax

    open_checkout(checkout)
    utils = importlib.import_module("big_vision.utils")
    vit = importlib.import_module("big_vision.models.vit")
    peer = f"google-research/big_vision, flax {flax.__version__}"
    variants = {
        "tok": ("trained", 2, {"pool_type": "tok"}),
        "gap": ("trained", 1, {"pool_type": "gap"}),
        "map": ("trained", 1, {"pool_type": "map"}),
        "representation": ("trained", 1, {"pool_type": "tok", "rep_size": 6}),
        "sincos2d": ("trained", 1, {"pool_type": "gap", "posemb": "sincos2d"}),
        "scan": ("trained", 2, {"pool_type": "gap", "scan": True}),
        "training": ("trained", 1, {"pool_type": "tok"}),
        "image_tower": ("trained", 1, {"pool_type": "map", "num_classes": None}),
        "wide": ("wide", 1, {"pool_type": "tok"}),
    }
    for name, (size, depth, changes) in variants.items():
        model = vit.Model(
            **{
                "num_classes": NUM_CLASSES,
                "patch_size": (PATCH_SIZE, PATCH_SIZE),
                "width": WIDTH,
                "depth": depth,
                "mlp_dim": MLP_WIDTH,
                "num_heads": NUM_HEADS,
                **changes,
            }
        )
        parameters = random_parameters(model, size, f"big_vision/{name}")
        outputs, sizes, facts = {size: run_big_vision(model, parameters, images[size])}, {"trained": "apply"}, {}
        if size == "wide":
            sizes, facts = INITIALIZED_WIDE, WIDE
        elif name == "sincos2d":
            facts = {"image_size": SIZES["trained"][0]}
            for other in ("larger", "wide"):
                outputs[other] = run_big_vision(model, parameters, images[other])
                sizes[other] = "the same weights at this size"
        else:
            grid = jax.ShapeDtypeStruct((1, int(np.prod(SIZES["larger"])) // PATCH_SIZE**2, WIDTH), np.float32)
            trained = np.asarray(parameters["pos_embedding"])
            for other, positions in (("larger", vit.resample_posemb(trained, grid)), ("wide", zoomed_wide(trained))):
                outputs[other] = run_big_vision(model, {**parameters, "pos_embedding": positions}, images[other])
            sizes |= {"larger": "vit.resample_posemb", "wide": ZOOMED_WIDE}
        tree = parameters
        if name == "image_tower":
            tree = beside_a_text_tower(parameters, f"big_vision/{name}")
        elif name == "training":
            tree = in_training(parameters)

        def save(folder: Path, tree: dict = tree) -> None:
            names_and_values, _ = utils.tree_flatten_with_names(tree)
            np.savez_compressed(folder / "model.npz", **dict(names_and_values))  # one of the two ways of the peer

        yield Case("big_vision", name, peer, save, outputs, sizes, facts)
