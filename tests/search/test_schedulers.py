from search.decide.clocks.schedulers import SCHEDULERS
from search.run import main
from tests.search.scheduler_contract import SchedulerContract


class TestMoasha(SchedulerContract):
    name = "moasha"


class TestNone(SchedulerContract):
    name = "none"


def test_every_scheduler_is_held_to_the_contract():
    assert {tested.name for tested in SchedulerContract.__subclasses__()} == set(SCHEDULERS)


def test_a_space_that_names_no_scheduler_there_is_gets_one_line(tmp_path, capsys):
    space = '[space]\nname = "mine"\n[knobs.d_ff]\nvalues = [8]\n[search]\nscheduler = "asha"\n'
    (tmp_path / "mine.toml").write_text(space)

    assert main(["--space", str(tmp_path / "mine.toml"), "--runs_dir", str(tmp_path)]) == 2
    message = "search.scheduler of mine must be one of moasha, none, got 'asha'."
    assert capsys.readouterr().err.strip() == message
