# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Training: from a recipe to a finished checkpoint."""
