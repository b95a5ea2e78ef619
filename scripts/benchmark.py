"""Time our models beside transformers' own ViT, with the same weights, in one process and in interleaved rounds.

    python scripts/benchmark.py                              # the digits preset and ViT-B/16, inference and train step
    python scripts/benchmark.py --models vit-base-patch16-224 --rounds 20
    python scripts/benchmark.py --modes import               # import time of the package beside transformers' ViTModel
    python scripts/benchmark.py --modes weights              # memory and time of importing the weights of a ViT-L

The outputs of both sides are asserted equal before anything is timed. Each round times one side and then the other, so
that what else the machine does meets both; the ratio is taken round by round and its median and range are printed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.presets import preset_path

BATCH_SIZES = {"digits": 64, "vit-base-patch16-224": 8}
VIT_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_labels": 1000,
}
# Both sides in the original ViT's settings: transformers' ViT has no post-norm to compare with.
ORIGINAL_VIT = {
    "norm_first": True,
    "use_cls_position": True,
    "use_final_layer_norm": True,
    "attention_probs_dropout_prob": 0.0,
}


def build_pair(preset: str) -> tuple[torch.nn.Module, torch.nn.Module, ViTScratchConfig]:
    """Our model and transformers' ViT of the same dimensions, with the same weights."""
    config = ViTScratchConfig.from_pretrained(preset_path(preset), **ORIGINAL_VIT)
    torch.manual_seed(0)
    ours = ViTScratchForImageClassification(config)
    shared = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "image_size",
        "patch_size",
    )
    peer_config = ViTConfig(
        **{name: getattr(config, name) for name in (*shared, "num_labels", "layer_norm_eps", "num_channels")}
    )
    peer = ViTForImageClassification(peer_config)
    peer.load_state_dict(to_transformers(ours.state_dict()))
    return ours, peer, config


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights under the names that transformers' ViT has in memory."""
    cls_position = state["vit.cls_token.cls_position"]
    result = {
        "vit.embeddings.cls_token": state["vit.cls_token.cls_token"],
        "vit.embeddings.position_embeddings": torch.cat(
            (cls_position, state["vit.positional_encoding.positional_embedding"]), dim=1
        ),
    }
    names = {
        "vit.patch_embedding.": "vit.embeddings.patch_embeddings.",
        "vit.norm.": "vit.layernorm.",
        "classification_head.fc.": "classifier.",
        "vit.encoder.": "vit.layers.",
        ".out_proj.": ".o_proj.",
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".ff.0.": ".mlp.fc1.",
        ".ff.2.": ".mlp.fc2.",
    }
    for key, value in state.items():
        if key.startswith(("vit.cls_token.", "vit.positional_encoding.")):
            continue
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        if ".in_proj." in key:
            for part, name in zip(value.chunk(3), ("q_proj", "k_proj", "v_proj"), strict=True):
                result[key.replace("in_proj", name)] = part
        else:
            result[key] = value
    return result


def inference(model: torch.nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One forward pass: the logits."""
    with torch.inference_mode():
        return model(pixel_values=pixel_values).logits


def train_step(model: torch.nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Forward and backward pass: the gradient of the head."""
    model.zero_grad(set_to_none=True)
    model(pixel_values=pixel_values, labels=labels).loss.backward()
    return list(model.parameters())[-1].grad


def compare(step: Callable, ours, peer, inputs: tuple, rounds: int) -> dict[str, float]:
    """Time a step of each side in interleaved rounds: medians in seconds, ratios of speed (above 1: ours is faster)."""
    torch.testing.assert_close(step(ours, *inputs), step(peer, *inputs), rtol=1e-4, atol=1e-5)
    sides: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds):
        # The side that goes first alternates, so that neither always finds the caches as the other left them.
        for side in (0, 1) if index % 2 else (1, 0):
            began = time.perf_counter()
            step((ours, peer)[side], *inputs)
            sides[side].append(time.perf_counter() - began)
    ratios = [theirs / mine for mine, theirs in zip(*sides, strict=True)]
    return {
        "ours": statistics.median(sides[0]),
        "transformers": statistics.median(sides[1]),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def benchmark_models(presets: list[str], modes: list[str], rounds: int) -> None:
    """Print a table: images per second of both sides, and the ratio."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds; images/s, fp32, sdpa")
    print(f"{'preset':<22} {'mode':<12} {'batch':>5} {'ours':>9} {'transformers':>12}   ratio (range)")
    for preset in presets:
        ours, peer, config = build_pair(preset)
        batch = BATCH_SIZES.get(preset, 8)
        generator = torch.Generator().manual_seed(0)
        pixel_values = torch.randn(batch, 3, config.image_size, config.image_size, generator=generator)
        labels = torch.randint(config.num_labels, (batch,), generator=generator)
        for mode in modes:
            step = {"inference": inference, "train-step": train_step}[mode]
            for model in (ours, peer):
                model.train(mode == "train-step")
            result = compare(step, ours, peer, (pixel_values, labels), rounds)
            speeds = batch / result["ours"], batch / result["transformers"]
            print(
                f"{preset:<22} {mode:<12} {batch:>5} {speeds[0]:>9.1f} {speeds[1]:>12.1f}"
                f"   {result['ratio']:.3f} ({result['lowest']:.3f} to {result['highest']:.3f})",
                flush=True,
            )


def benchmark_import(rounds: int) -> None:
    """Print the median time to import each side in a fresh process, and to build the small preset with it."""
    programs = {
        "modeling_vit_scratch": "import modeling_vit_scratch as m; m.ViTScratchForImageClassification",
        "transformers.ViTModel": "import transformers as m; m.ViTModel; m.ViTForImageClassification",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        print(f"import {name:<22} {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def benchmark_weights() -> None:
    """Print what an import of random ViT-L weights takes, of transformers' folder and of Google's `.npz`."""
    baseline = _peak("import modeling_vit_scratch.porting")[0]
    with tempfile.TemporaryDirectory() as folder:
        sources = {"transformers": Path(folder, "theirs"), "google": Path(folder, "L_16.npz")}
        config = ViTConfig(**VIT_L)
        ViTForImageClassification(config).save_pretrained(sources["transformers"])
        _save_as_google(sources["transformers"], sources["google"])
        for name, source in sources.items():
            size = sum(path.stat().st_size for path in (source.iterdir() if source.is_dir() else [source]))
            output = Path(folder, f"ours-{name}")
            program = f"from modeling_vit_scratch.cli import main; main(['import', {str(source)!r}, {str(output)!r}])"
            peak, seconds = _peak(program)
            print(
                f"import weights  {name:<12} {size / 1e9:.2f} GB in {seconds:.0f} s; peak {peak / 1e9:.2f} GB, "
                f"{(peak - baseline) / size:.2f} x the file above the {baseline / 1e9:.2f} GB of the libraries"
            )


def _peak(program: str) -> tuple[int, float]:
    """The largest resident size of a fresh process that runs a program, in bytes, and its seconds."""
    report = "; import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", program + report], check=True, capture_output=True, text=True)
    return int(result.stderr.split()[-1]) * 1024, time.perf_counter() - began


def _save_as_google(folder: Path, file: Path) -> None:
    """The weights of a transformers ViT as vision_transformer writes them."""
    model = ViTForImageClassification.from_pretrained(folder)
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    arrays = {}

    def linear(theirs: str, layer: torch.nn.Linear, shape: tuple[int, ...] = (), bias: tuple[int, ...] = ()) -> None:
        arrays[f"{theirs}/kernel"] = layer.weight.detach().numpy().T.reshape(shape or (layer.in_features, -1))
        arrays[f"{theirs}/bias"] = layer.bias.detach().numpy().reshape(bias or -1)

    def norm(theirs: str, layer: torch.nn.LayerNorm) -> None:
        arrays[f"{theirs}/scale"], arrays[f"{theirs}/bias"] = (p.detach().numpy() for p in (layer.weight, layer.bias))

    embeddings = model.vit.embeddings
    projection = embeddings.patch_embeddings.projection
    arrays["embedding/kernel"] = projection.weight.detach().numpy().transpose(2, 3, 1, 0)
    arrays["embedding/bias"] = projection.bias.detach().numpy()
    arrays["cls"] = embeddings.cls_token.detach().numpy()
    arrays["Transformer/posembed_input/pos_embedding"] = embeddings.position_embeddings.detach().numpy()
    for index, layer in enumerate(model.vit.layers):
        block = f"Transformer/encoderblock_{index}"
        norm(f"{block}/LayerNorm_0", layer.layernorm_before)
        norm(f"{block}/LayerNorm_2", layer.layernorm_after)
        for name in ("query", "key", "value"):
            projection = getattr(layer.attention, f"{name[0]}_proj")
            linear(f"{block}/MultiHeadDotProductAttention_1/{name}", projection, (width, heads, -1), (heads, -1))
        linear(f"{block}/MultiHeadDotProductAttention_1/out", layer.attention.o_proj, (heads, -1, width))
        linear(f"{block}/MlpBlock_3/Dense_0", layer.mlp.fc1)
        linear(f"{block}/MlpBlock_3/Dense_1", layer.mlp.fc2)
    norm("Transformer/encoder_norm", model.vit.layernorm)
    linear("head", model.classifier)
    np.savez(file, **arrays)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(BATCH_SIZES), metavar="PRESET")
    parser.add_argument("--modes", nargs="+", default=["inference", "train-step", "import"])
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    if "import" in arguments.modes:
        benchmark_import(arguments.rounds)
    if "weights" in arguments.modes:
        benchmark_weights()
    modes = [mode for mode in arguments.modes if mode not in ("import", "weights")]
    if modes:
        benchmark_models(arguments.models, modes, arguments.rounds)


if __name__ == "__main__":
    main()
