# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A model as a graph, for those who only want the answer: traced, in ONNX, in 8-bit integers."""
