#!/usr/bin/env bash
# Everything that must hold before a change lands: lint, format, types, tests.
#
#   scripts/test.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

install_package "[test]"
export TOKENIZERS_PARALLELISM=false
echo "Lint …"
.venv/bin/ruff check .
echo "Format …"
.venv/bin/ruff format --check .
echo "Types and tests …"
# Side by side: many tests wait for processes that they started.
.venv/bin/mypy >.venv/types.log 2>&1 &
types=$!
status=0
.venv/bin/pytest -n 2 --dist worksteal "$@" || status=$?
wait "$types" || status=1
cat .venv/types.log
exit "$status"
