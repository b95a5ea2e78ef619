# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: what is on images, one or millions."""
