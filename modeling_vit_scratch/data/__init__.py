# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images and labels: from files to the batches that a model is trained on."""
