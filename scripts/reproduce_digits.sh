#!/usr/bin/env bash
# The figures of the recipe `digits` in README.md: three seeds, their test accuracies, mean and range.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

install_package ""
export OMP_NUM_THREADS=1
for seed in 0 1 2; do
    echo "Seed $seed …"
    .venv/bin/vit-scratch train digits --seed "$seed" --output_dir "outputs/digits-seed-$seed" --overwrite_output_dir |
        grep -E '^(validation|test)_accuracy|^trained'
done
.venv/bin/python - outputs/digits-seed-{0,1,2}/all_results.json <<'PYTHON'
import json
import statistics
import sys
from pathlib import Path

for name in ("validation_accuracy", "test_accuracy"):
    values = [json.loads(Path(path).read_text())[name] for path in sys.argv[1:]]
    print(f"{name}: mean {statistics.mean(values):.2%}, {min(values):.2%} to {max(values):.2%}")
PYTHON
