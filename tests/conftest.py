"""What holds for all tests: no example of hypothesis is judged by the clock."""

from hypothesis import settings

settings.register_profile("without-a-clock", deadline=None)
settings.load_profile("without-a-clock")
