# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""How good a classifier is, on labelled images."""
