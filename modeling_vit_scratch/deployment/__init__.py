# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Models in other forms than torch's, for those who only want the answer: ONNX, and its 8-bit integers."""
