# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""`vit-scratch` as a module, for launchers: accelerate launch -m modeling_vit_scratch VERB …."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
