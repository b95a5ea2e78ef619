"""What the lineages share: images, random weights, looking into a forward pass, and writing a case."""

import contextlib
import importlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors.numpy import save_file

SIZES = {"trained": (12, 12), "larger": (20, 20), "wide": (12, 20)}
PATCH_SIZE, WIDTH, NUM_HEADS, MLP_WIDTH, NUM_CLASSES = 4, 8, 2, 12, 5

# Deviations. The tokens that enter the first block are small, so that the epsilon of its LayerNorm shows.
TOKEN, PROBE, BIAS, GAMMA, SCALE, GAIN = 0.1, 0.5, 0.2, 0.15, 0.3, 1.2


@dataclass
class Case:
    """One checkpoint and what the peer computes from it.

    Args:
        lineage, name: its folder is `lineage/name`.
        peer: name and version of what made it.
        save: writes the checkpoint into a folder, as the peer does.
        outputs: for each size, what `record` returns.
        sizes: for each size, how the peer came to it.
        facts: what the checkpoint does not say, in the names of our configuration.
    """

    lineage: str
    name: str
    peer: str
    save: Callable[[Path], None]
    outputs: dict[str, dict[str, np.ndarray]]
    sizes: dict[str, str]
    facts: dict = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        """Replace the folder of the case; returns it."""
        folder = root / self.lineage / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.save(folder)
        tensors = {
            f"{size}.{name}": np.ascontiguousarray(value, dtype=np.float32)
            for size, outputs in self.outputs.items()
            for name, value in outputs.items()
        }
        for name, value in tensors.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{folder}: {name} is not finite.")
        save_file(tensors, folder / "expected.safetensors")
        text = json.dumps({"peer": self.peer, "facts": self.facts, "sizes": self.sizes}, indent=2)
        (folder / "case.json").write_text(text + "\n", "utf-8")
        return folder


def images() -> dict[str, np.ndarray]:
    """The images of every case, one for each size: normal noise, (1, 3, height, width)."""
    generator = np.random.default_rng(0)
    return {size: generator.standard_normal((1, 3, *shape), dtype=np.float32) for size, shape in SIZES.items()}


def version(module: ModuleType) -> str:
    """Name and version of a package, without the build."""
    return f"{module.__name__} {module.__version__.split('+')[0]}"


# --- Random weights --------------------------------------------------------------------------------------------------


def generator_of(name: str) -> np.random.Generator:
    """A generator for a case, the same in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw(generator: np.random.Generator, kind: str, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """Random values for a parameter, none of which stays at what it would be initialised to.

    Args:
        generator: where they come from.
        kind: "token" (positions too), "probe", "bias", "gamma", "scale" (of a LayerNorm), "patches" or "weight".
        shape: of the parameter.
        fan_in: inputs of each output, for the last two kinds.
    """
    noise = generator.standard_normal(shape, dtype=np.float32)
    mean, deviation = {
        "token": (0.0, TOKEN),
        "probe": (0.0, PROBE),
        "bias": (0.0, BIAS),
        "gamma": (0.5, GAMMA),
        "scale": (1.0, SCALE),
        "patches": (0.0, TOKEN / fan_in**0.5),
        "weight": (0.0, GAIN / fan_in**0.5),
    }[kind]
    values = np.asarray(mean + deviation * noise, dtype=np.float32)
    # With the digits of bfloat16 half of the bytes are zeros, and git compresses them.
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


PATCH_LAYERS = ("patch_embed.proj.", "conv_proj.", "to_patch_embedding.", "patch_embedding.projection.")
TOKENS = ("cls_token", "class_token", "dist_token", "reg_token", "pos_embed", "pos_embedding", "positional_embedding")


def torch_kind(name: str, parameter: torch.Tensor) -> str:
    """The kind of a parameter of a torch model, from its name and shape."""
    last = name.rsplit(".", 1)[-1]
    of_patches = name.startswith(PATCH_LAYERS)
    if last in TOKENS:
        kind = "token"
    elif last == "latent":
        kind = "probe"
    elif last == "gamma":
        kind = "gamma"
    elif last.endswith("bias"):
        kind = "token" if of_patches else "bias"
    elif parameter.ndim == 1:
        kind = "scale"
    else:
        kind = "patches" if of_patches else "weight"
    return kind


def randomize(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """Give every parameter of a torch model random values that depend on `name` only; returns the model, to predict."""
    generator = generator_of(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            fan_in = max(1, parameter[:1].numel())
            values = draw(generator, torch_kind(key, parameter), tuple(parameter.shape), fan_in)
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


# --- Looking into a forward pass of a torch model --------------------------------------------------------------------


def watch(
    model: torch.nn.Module, image: np.ndarray, *modules: torch.nn.Module
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The output of a model, and what went into and came out of some of its modules."""
    seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def note(module, args, output):
        seen[module] = (args[0].clone(), output.clone())

    handles = [module.register_forward_hook(note) for module in modules]
    with torch.no_grad():
        output = model(torch.from_numpy(image))
    for handle in handles:
        handle.remove()
    return output, [seen[module] for module in modules]


def outputs_of(hidden_states: list, last_hidden_state=None, pooled=None, logits=None) -> dict[str, np.ndarray]:
    """The outputs of a case under the names that they have in its file.

    Args:
        hidden_states: the tokens that enter the first block, and those that leave each block.
        last_hidden_state: after the final LayerNorm; without one, the last of `hidden_states`.
        pooled: what the classifier reads.
        logits: what it returns.
    """
    last = hidden_states[-1] if last_hidden_state is None else last_hidden_state
    outputs = {"last_hidden_state": last, "pooled": pooled, "logits": logits}
    return {
        "hidden_states": np.stack([np.asarray(state) for state in hidden_states]),
        **{name: np.asarray(value) for name, value in outputs.items() if value is not None},
    }


# --- Peers that are not installed ------------------------------------------------------------------------------------


@contextlib.contextmanager
def importing_from(folder: Path, package: str) -> Iterator[ModuleType]:
    """Import a package from a folder, in place of the release that is installed."""

    def take_away() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.split(".")[0] == package]
        return {name: sys.modules.pop(name) for name in names}

    installed = take_away()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(package)
    finally:
        sys.path.remove(str(folder))
        take_away()
        sys.modules.update(installed)
