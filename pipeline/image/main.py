"""What the template's launcher runs: a separate script, so that nothing of the job lives in `__main__`."""

import sys

from pipeline.jobs.stream import main

sys.exit(main())
