"""What the metrics of a validation with many classes take, beside the forward passes: processor time and memory.

    OMP_NUM_THREADS=1 python scripts/measure_validation.py [--images N] [--classes K] [--batch-size B] [--whole]

The logits are random and come in batches, as from a model. With `--whole` they are kept and scored together, by a sort
of all classes and a matrix of all pairs of them, for comparison.
"""

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import sklearn.metrics
import torch
from torch import Tensor
from transformers.trainer_pt_utils import EvalLoopContainer

from modeling_vit_scratch.evaluation.metrics import Outcome, compute_metrics, most_confused, outcome_of


def batches(images: int, classes: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (B, K) in which the label stands out a little, and labels (B,)."""
    random = torch.Generator().manual_seed(0)
    for start in range(0, images, batch_size):
        labels = torch.arange(start, min(start + batch_size, images)) % classes
        logits = torch.randn(len(labels), classes, generator=random)
        logits[range(len(labels)), labels] += 3
        yield logits, labels


def in_batches(given: Iterator[tuple[Tensor, Tensor]], classes: int) -> dict[str, float]:
    """As `evaluate` and the validation of `train` do it, in the containers of transformers' `Trainer`."""
    kept, of_all = EvalLoopContainer(), EvalLoopContainer()
    for logits, labels in given:
        kept.add(tuple(outcome_of(logits, labels, classes)))
        of_all.add(labels)
    outcome, all_labels = Outcome(*kept.get_arrays()), of_all.get_arrays()
    most_confused(outcome, all_labels, 15)
    return compute_metrics(outcome, all_labels, classes)


def whole(given: Iterator[tuple[Tensor, Tensor]], classes: int) -> dict[str, float]:
    """The accuracies from all logits at once, and the matrix that a picture would show."""
    kept, labels = zip(*given, strict=True)
    logits, all_labels = torch.cat(kept).numpy(), torch.cat(labels).numpy()
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.log1p(sklearn.metrics.confusion_matrix(all_labels, top[:, 0], labels=range(classes)))
    hits = top == all_labels[:, None]
    return {"accuracy": float(hits[:, 0].mean()), "top5_accuracy": float(hits.any(axis=1).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--whole", action="store_true", help="keep all logits")
    options = parser.parse_args()
    began = time.process_time()
    for _ in batches(options.images, options.classes, options.batch_size):
        pass  # what making the logits takes is no part of it
    made = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    score = whole if options.whole else in_batches
    began = time.process_time()
    metrics = score(batches(options.images, options.classes, options.batch_size), options.classes)
    seconds = time.process_time() - began - made
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1e6
    print(f"{options.images:,} images, {options.classes:,} classes: {seconds:.1f} s of one core, {more:.2f} GB at most")
    print({name: round(value, 4) for name, value in metrics.items()})


if __name__ == "__main__":
    main()
