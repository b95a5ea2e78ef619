# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A checkpoint as a page in the browser, on this machine or as a Space on the Hub."""
