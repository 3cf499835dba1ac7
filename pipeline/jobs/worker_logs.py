"""What a worker imports before anything else: from then on it writes its log as `pipeline.logs` says.

Beam makes the handler that sends a worker's log, and imports what its option `beam_plugins` names right after that.
"""

from __future__ import annotations

import logging

from pipeline import logs

logs.install_json_formatter(logging.getLogger())
logs.close_side_doors()
