# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What one batch frees is there for the next one."""

import sys

import pytest
from runs import Run

# The page faults of making and freeing 64 MB ten times, as a layer does with its activations.
FAULTS = """
import resource, sys
import torch
from modeling_vit_scratch.machine import keep_freed_memory
{setting}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for times in (3, 10):  # the first have to be got from the system
    before = faults()
    for _ in range(times):
        torch.ones(2**24)
print(faults() - before)
sys.exit()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_that_was_freed_is_not_got_from_the_system_again(tmp_path):
    default, kept = (
        int(Run([], tmp_path, FAULTS.format(setting=line)).end().out) for line in ("", "keep_freed_memory()")
    )
    pages = 10 * 64 * 2**20 // 2**12
    assert default > pages / 4  # or there is nothing to save
    assert kept < pages / 100
