"""Workers whose environment says that freed memory goes back at once keep some of it all the same."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from beatmeter.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(50):
    np.ones(1 << 18)  # 2 MB: numpy asks for huge pages from 4 MB on, and those come or not
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variable is glibc's")
def test_what_is_freed_is_used_again() -> None:
    def faults(word: str, threshold: int = 65_536) -> int:
        env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": str(threshold)}
        return int(subprocess.check_output([sys.executable, "-c", FAULTS, word], env=env, text=True))

    assert 10 * faults("keep") < faults("give back")
    assert 2 * faults("keep", 70_000) > faults("give back"), "a user's own value stays"
