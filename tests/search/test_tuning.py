"""What a search loads to hand its loop to Ray Tune."""

import subprocess
import sys

from tests.search.searching import ROOT


def test_the_logs_for_tensorboard_load_no_torch_and_leave_it_to_whoever_wants_it():
    program = """
import sys
from search.tune.tuning import load_tensorboard
load_tensorboard()
from tensorboardX import SummaryWriter
assert "torch" not in sys.modules
import torch
load_tensorboard()
assert sys.modules["torch"] is torch
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
