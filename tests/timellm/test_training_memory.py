import time

import numpy as np
import torch

from timellm.training.memory import GIB, MemoryWatch

CPU = torch.device("cpu")


def test_the_peak_outlives_the_memory():
    with MemoryWatch(CPU) as watch:
        before = watch.peak_gib
        block = np.ones(GIB // 4, dtype=np.uint8)
        time.sleep(0.5)
        del block
        time.sleep(0.3)
    assert 0.2 < watch.peak_gib - before < 0.5


def test_passing_the_limit_is_told_once():
    told = []
    with MemoryWatch(CPU, limit_gib=0.01, on_exceeded=told.append):
        time.sleep(0.6)
    assert len(told) == 1
    assert told[0] > 0.01
