# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the operating system has to be asked with care: folders, locks, signals, and the parts of the machine."""
