#!/usr/bin/env bash
# Watch the article's Vision Transformer learn real images: handwritten digits that scikit-learn ships.
#
#   scripts/quickstart.sh [--flag value …]      flags of `vit-scratch train`, such as --seed 1
#
# Makes an environment (.venv), trains with the recipe `digits`, evaluates once on the test split, saves the checkpoint
# outputs/digits, loads it back through transformers' Auto classes and predicts a few test images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

install_package ""
# The model is so small that threads spend their time waiting for each other, most of it where other programs run.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
echo "Training …"
.venv/bin/vit-scratch train digits --output_dir outputs/digits --overwrite_output_dir "$@"

echo
echo "Loading the checkpoint back and predicting a few test images (their names say what they are) …"
.venv/bin/python - outputs/digits-samples <<'PYTHON'
import sys
from pathlib import Path

from modeling_vit_scratch.data.dataset_loading import load_images

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for row in load_images("digits")["test"].select(range(8)):
    (folder / f"{Path(row['image']['path']).stem}-is-{row['label']}.png").write_bytes(row["image"]["bytes"])
PYTHON
.venv/bin/vit-scratch predict outputs/digits outputs/digits-samples

echo
echo "Look at outputs/digits/training.png, and read outputs/digits/README.md."
