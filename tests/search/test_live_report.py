import re
import signal

from results import RunFolder, load_trials
from search.screen.live_report import HEAD_START, SHARE, LiveReport
from tests.search.searching import kill_tree, search, start
from tests.waiting import wait_for


class Building:
    """A builder whose reports take the seconds that are set; `now` is its clock."""

    def __init__(self, seconds=1.0):
        self.seconds, self.now, self.built = seconds, 0.0, []

    def __call__(self, folder):
        self.built.append(self.now)
        self.now += self.seconds


def test_reports_take_no_more_than_their_share_of_a_search(tmp_path):
    building = Building(seconds=2.0)
    report = LiveReport(RunFolder(tmp_path), print, building, lambda: building.now)

    for _ in range(10_000):
        report.refresh()
        building.now += 0.1

    spent = building.seconds * len(building.built)
    assert len(building.built) > 10
    assert spent <= HEAD_START + SHARE * building.now + building.seconds


def test_every_trial_of_a_long_search_gets_its_report(tmp_path):
    building = Building(seconds=0.5)
    report = LiveReport(RunFolder(tmp_path), print, building, lambda: building.now)

    for _ in range(20):
        report.refresh()
        building.now += 60.0

    assert len(building.built) == 20


def test_a_report_that_cannot_be_built_is_said_once_and_ends_nothing(tmp_path):
    said = []
    report = LiveReport(RunFolder(tmp_path), said.append)

    for _ in range(3):
        report.refresh()

    (words,) = said
    assert re.fullmatch(
        r"Warning: the report could not be refreshed \(InputError: .* The search goes on without it.", words
    )


def test_a_running_search_keeps_its_report_and_ends_it(tmp_path):
    process = start(tmp_path, "--name", "live", seconds=2)
    folder = RunFolder(tmp_path / "live")
    try:
        wait_for(lambda: folder.trial("t0002").events.is_file(), seconds=300)
        running = folder.report.read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    finally:
        kill_tree(process.pid)
    interrupted = folder.report.read_text()
    ended = search(tmp_path, "--resume", "live", "--num_trials", "3", seconds=0.1)

    banner = re.search(r"The search is running:[^<]*", running)[0].replace("\N{NO-BREAK SPACE}", " ")
    assert re.fullmatch(r".* [01] trials? so far in .* s of 10 min 00 s\. Updated at ", banner)
    assert '<meta name="refresh"' in running
    assert process.returncode == 130
    assert "· interrupted" in interrupted
    assert '<meta name="refresh"' not in interrupted
    assert ended.returncode == 0, ended.stderr
    assert len(load_trials(folder.path)) == 3
    assert '<meta name="refresh"' not in folder.report.read_text()
