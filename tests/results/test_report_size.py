import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_writes_its_section_and_holds_the_limit(tmp_path):
    output = tmp_path / "report_size.md"
    flags = ["--trials", "40", "--repeats", "1", "--output", str(output)]

    def run(*more):
        command = [sys.executable, "-m", "benchmarks", "report_size", *flags, *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    done, too_slow = run(), run("--limit", "0.001")

    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert "| load and report | " in text
    assert "Table: 40 trials" in text
    assert "## GPU" not in text
    assert too_slow.returncode == 1
