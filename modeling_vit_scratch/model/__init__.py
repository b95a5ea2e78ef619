# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What travels: the files that every saved checkpoint carries. They import torch, transformers and each other."""
