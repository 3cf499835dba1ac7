"""The local stack with chosen launch options, for the supervisor's process.

python -m bench.stack --state DIR [--set batchMillis=100 …]
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from local.stack.supervisor import Options, Supervisor, pipeline_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = [f"--{option}" for option in given.chosen]
    # The last of two equal options counts.
    supervisor = Supervisor(Options(state=given.state), command=lambda made: [*pipeline_command(made), *chosen])
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    sys.exit(supervisor.run())


if __name__ == "__main__":
    main()
