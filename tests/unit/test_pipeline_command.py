"""The command that the local stack runs the job with."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from local.provision.engine import Provisioned
from local.stack.supervisor import pipeline_command


def test_the_job_is_not_ended_by_beam_s_patience() -> None:
    """Its default is the deadline of the call that waits for the job's end: a streaming job would die every time."""
    made = Provisioned(resources=(), job_parameters={}, scheduled=(), outputs={"jobName": "audit-stream-job"})
    options = PipelineOptions(pipeline_command(made)[3:]).view_as(PortableOptions)
    assert options.job_server_timeout > 30 * 24 * 3600
