#!/usr/bin/env bash
# Everything that must hold before a change lands: lint, format, types, tests.
#
#   scripts/test.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

install_package "[test]"
# One thread for each of the two test processes, or they wait for each other.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
echo "Lint …"
.venv/bin/ruff check .
echo "Format …"
.venv/bin/ruff format --check .
echo "Types …"
.venv/bin/mypy
echo "Tests …"
.venv/bin/pytest -n 2 --dist worksteal "$@"
