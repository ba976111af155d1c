"""What every test shares."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
"""How long an example takes says nothing: other work may share the machine."""
