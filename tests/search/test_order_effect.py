import os
import subprocess
import sys

import pytest

from benchmarks.order_effect import mean_of, ratio_of_runs
from tests.search.searching import ROOT
from tests.timellm.tiny_backbones import save_tiny


def result(seconds, spread):
    return {
        "seconds_per_epoch": seconds,
        "seconds_per_epoch_low": seconds / spread,
        "seconds_per_epoch_high": seconds * spread,
    }


def test_equal_times_are_a_ratio_of_one_within_its_interval():
    ratio = ratio_of_runs(result(10.0, 1.02), result(10.0, 1.02)).interval
    assert ratio.median == 1.0
    assert 0.97 < ratio.low < 0.98
    assert 1.02 < ratio.high < 1.03


def test_more_rounds_narrow_the_interval_of_the_mean():
    ratio = ratio_of_runs(result(12.0, 1.02), result(10.0, 1.02))
    whole = mean_of([ratio] * 4)
    assert whole.interval.median == pytest.approx(1.2)
    assert whole.error == pytest.approx(ratio.error / 2)


@pytest.mark.slow
def test_the_order_effect_is_written_with_its_ratio(tmp_path):
    backbone, output = save_tiny("gpt2", tmp_path / "tiny"), tmp_path / "order_effect.md"
    flags = "--rounds 1 --llm_layers 2 --d_ff 8 --num_prototypes 8 --threads 1 --train_samples 64".split()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "order_effect",
            "--llm_model",
            str(backbone),
            *flags,
            "--output",
            str(output),
        ],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    assert "| geometric mean |" in output.read_text()
