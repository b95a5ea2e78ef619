"""Make the golden files: tiny checkpoints that other Vision Transformers wrote, and what they compute from them.

    pip install timm==1.0.31 torchvision==0.29.1 vit-pytorch==1.26.11
    pip install "jax[cpu]==0.10.2" flax==0.12.8 optax ml_collections scipy pandas tqdm
    pip install --no-deps --target OLD_TIMM timm==1.0.30
    pip install --no-deps --target OLD_A vit-pytorch==0.40.2       # likewise 1.2.9, 1.10.1 and 1.16.0
    git clone https://github.com/google-research/vision_transformer VIT    # models_vit.py as of commit 143bd26
    git clone https://github.com/google-research/big_vision BV             # models/vit.py as of commit 5f95305
    python scripts/make_golden.py --old-timm OLD_TIMM --old-vit-pytorch OLD_A OLD_B OLD_C OLD_D \\
        --vision-transformer VIT --big-vision BV

Each case is a folder `tests/golden/LINEAGE/CASE` with the checkpoint exactly as the peer writes it, and beside it

- `expected.safetensors`: for each size of image `SIZE.hidden_states` (the tokens that enter the first block, and those
  that leave each block, stacked), `SIZE.last_hidden_state` (after the final LayerNorm, if one precedes pooling),
  `SIZE.pooled` (what the classifier reads) and `SIZE.logits`;
- `case.json`: the peer, the facts that its checkpoint does not say, and how it came to each size.

`tests/golden/timm_architectures.json` says what the names of timm's architectures imply.

The images, `tests/golden/inputs.safetensors`, are the same for all cases: `trained` (12x12 pixels, what most models are
made for), `larger` (20x20) and `wide` (12x20). Every parameter is random, so that none can be lost or swapped unseen.
The cases of a peer whose folder is not given are left as they are. Two runs on one machine write the same bytes;
elsewhere the checkpoints are the same, and the outputs agree to the last digits of single precision.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from golden import article_cases, jax_cases, lucidrains_cases, timm_architectures, timm_cases, torchvision_cases
from golden.common import Case, images

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GOLDEN, help="the folder to write to")
    parser.add_argument("--old-timm", type=Path, help="folder with an older release of timm")
    parser.add_argument("--old-vit-pytorch", type=Path, nargs="*", default=[], help="folders with older releases")
    parser.add_argument("--vision-transformer", type=Path, help="checkout of google-research/vision_transformer")
    parser.add_argument("--big-vision", type=Path, help="checkout of google-research/big_vision")
    return parser.parse_args()


def all_cases(arguments: argparse.Namespace, inputs: dict[str, np.ndarray]) -> Iterator[Case]:
    yield from article_cases.cases(inputs)
    yield from timm_cases.cases(inputs)
    if arguments.old_timm:
        yield from timm_cases.cases_of_old_release(inputs, arguments.old_timm)
    yield from torchvision_cases.cases(inputs)
    yield from lucidrains_cases.cases(inputs)
    for folder in arguments.old_vit_pytorch:
        yield from lucidrains_cases.cases_of_old_release(inputs, folder)
    if arguments.vision_transformer:
        yield from jax_cases.vision_transformer_cases(inputs, arguments.vision_transformer)
    if arguments.big_vision:
        yield from jax_cases.big_vision_cases(inputs, arguments.big_vision)


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    inputs = images()
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_file(inputs, arguments.output / "inputs.safetensors")
    for case in all_cases(arguments, inputs):
        folder = case.write(arguments.output)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{case.lineage}/{case.name}: {', '.join(case.outputs)} ({size / 1000:.1f} kB)")
    print(f"{timm_architectures.write(arguments.output).name}: what the names of timm's architectures tell")
    total = sum(file.stat().st_size for file in arguments.output.rglob("*") if file.is_file())
    print(f"{total / 1000:.0f} kB in all")


if __name__ == "__main__":
    main()
