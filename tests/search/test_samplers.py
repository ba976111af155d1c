from search.decide.propose.samplers import SAMPLERS
from tests.search.sampler_contract import SamplerContract


class TestTpe(SamplerContract):
    name = "tpe"


class TestNsga2(SamplerContract):
    name = "nsga2"


class TestGp(SamplerContract):
    name = "gp"


class TestRandom(SamplerContract):
    name = "random"


def test_every_sampler_is_held_to_the_contract():
    assert {tested.name for tested in SamplerContract.__subclasses__()} == set(SAMPLERS)
