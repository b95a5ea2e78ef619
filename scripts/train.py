# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""`vit-scratch train` as a script, for launchers: accelerate launch scripts/train.py RECIPE [--flag value …]."""

import sys

from modeling_vit_scratch.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
