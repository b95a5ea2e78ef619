# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verbs of the command line: each reads its flags, calls one function of the package, and prints what came of it.

That function and what it needs are imported when the verb runs, so that `--help` and mistakes do not wait for it.
"""
