# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints and the Hub: what a name means, fetching and loading it, its card, and pushing."""
