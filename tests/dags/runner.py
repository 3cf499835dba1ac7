"""Runs DAGs as they are requested, in an environment of Airflow's; tests/dags/versions.py starts it.

    PYTHON runner.py DAGS ENDPOINT DESCRIPTOR    lines of JSON on stdin, {"dag", "params"}; answers on that descriptor

Airflow is the real one, its operator, its hook and its trigger as well. What differs: where Cloud Run and Cloud
Logging are reached, anonymous credentials (the connection says so), and shorter pauses.
"""

import json
import os
import sys
from pathlib import Path

dags, endpoint = Path(sys.argv[1]), sys.argv[2]
# Instead of this folder.
sys.path[0] = str(dags)

from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook  # noqa: E402

CloudRunHook._get_api_endpoint = lambda *_, **__: endpoint

from payment_audit import operations  # noqa: E402

operations.LOGGING = operations.RUN = endpoint
operations.POLL_SECONDS = 0.2
operations.LOG_PAUSE_SECONDS = 0.2


def bag():
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    try:
        return DagBag(str(dags), include_examples=False)
    except TypeError:
        return DagBag(str(dags))


def described(dag):
    return {
        "schedule": getattr(dag, "schedule", None) if hasattr(dag, "schedule") else dag.schedule_interval,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "doc": dag.doc_md,
        "tasks": {
            task.task_id: {
                "timeout": task.execution_timeout.total_seconds() if task.execution_timeout else None,
                "retries": task.retries,
                "after": sorted(task.upstream_task_ids),
            }
            for task in dag.tasks
        },
    }


def run(dag, params):
    # As one that is triggered: params are checked, and the run's configuration overrides them.
    found = dag.test(run_conf=params)
    return {
        "state": str(getattr(found.state, "value", found.state)),
        "tasks": {one.task_id: str(getattr(one.state, "value", one.state)) for one in found.get_task_instances()},
    }


def main():
    loaded = bag()
    with os.fdopen(int(sys.argv[3]), "w") as answers:
        ready = {"errors": loaded.import_errors, "dags": {name: described(dag) for name, dag in loaded.dags.items()}}
        print(json.dumps(ready, default=str), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            # Read again, as each run of Airflow's does: `dag.test` of Airflow 3 keeps the params of the run before.
            print(json.dumps(run(bag().dags[asked["dag"]], asked["params"])), file=answers, flush=True)


main()
