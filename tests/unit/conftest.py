"""Property tests: the same examples in every run, no time limits, nothing kept on disk.

`pytest --hypothesis-profile=explore` looks further, at other examples each time.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=5000, deadline=None, database=None)
settings.load_profile("house")
