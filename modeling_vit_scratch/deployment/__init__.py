# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A classifier as one file that runs without this package: made, checked against the checkpoint, and described."""
