"""What a worker imports before anything else: from then on it writes its log as `pipeline.logs` says, and runs its
bundles as `pipeline.bundles` says.

Beam makes the handler that sends a worker's log, and imports what its option `beam_plugins` names right after that.
"""

from __future__ import annotations

import logging

from pipeline import bundles, logs

logs.install_json_formatter(logging.getLogger())
logs.close_side_doors()
bundles.end_without_delay()
bundles.leave_out_of_collections()
