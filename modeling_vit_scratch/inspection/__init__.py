# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Looking into a classifier: what it gets of an image, and where on it its attention goes."""
