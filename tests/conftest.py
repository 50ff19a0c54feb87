"""Hypothesis profiles: the same examples on every run by default, random and many with HYPOTHESIS_PROFILE=explore."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25, database=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
