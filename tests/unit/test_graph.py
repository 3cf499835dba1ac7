"""The job's graph as Prism's and Dataflow's runners submit it: no unmasked record crosses a stage.

What a runner makes one stage of is its own business. So the graph leaves it no reason to cut: between the source of all
streams and the encoded rows there are only plain ParDos of one environment, each with one consumer. Beam's published
fusion (`greedily_fuse`) then makes one stage of them, and so does Prism (tests/emulators/test_stages.py watches it).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipeline.jobs import stream
from pipeline.jobs.settings import parse
from tests.shipped import REQUIRED_OPTIONS

STREAMS = ("PaymentAuditTrailChangeStream", "AuditLogChangeStream")
# In this order; what they pass on inside is not masked, or not yet known to be.
CHAIN = (
    "Read/ReadWithBacklog/ReadUnbounded",
    "ToRows/ParDo(ToRows)/ParDo(ToRows)",
)
PARDO = common_urns.primitives.PAR_DO.urn


def built(*beam_args: str) -> Any:
    given = dict(REQUIRED_OPTIONS)
    given["spannerChangeStreamNames"] = ",".join(STREAMS)
    settings, rest = parse([*(f"--{name}={value}" for name, value in given.items()), *beam_args])
    pipeline = beam.Pipeline(options=stream.beam_options(settings, rest))
    sink = replace(settings.sink, run_id="1", start="2026-11-23T09:00:00.000000000Z")
    stream.build(pipeline, settings, sink, sink.resume_position, readers=1)
    return pipeline


@cache
def prism() -> beam_runner_api_pb2.Pipeline:
    """As `PrismRunner` submits it."""
    pipeline = built("--runner=PrismRunner")
    return PortableRunner.get_proto_pipeline(pipeline, pipeline.options)


@cache
def dataflow() -> beam_runner_api_pb2.Pipeline:
    """As `DataflowRunner` submits it, with its own changes of the graph; nothing is sent."""
    pipeline = built(
        "--runner=DataflowRunner",
        "--project=payment-audit",
        "--region=europe-west1",
        "--temp_location=gs://p-temp/temp",
        "--staging_location=gs://p-staging/staging",
        "--sdk_container_image=image",
        "--sdk_location=container",
        "--experiments=use_runner_v2",
        "--enable_streaming_engine",
        "--dry_run=True",
    )
    runner = DataflowRunner()
    runner.run_pipeline(pipeline, pipeline.options)
    return runner.proto_pipeline


TRANSLATIONS = pytest.mark.parametrize("translate", [prism, dataflow])
Translate = Callable[[], beam_runner_api_pb2.Pipeline]


def steps(proto: beam_runner_api_pb2.Pipeline) -> dict[str, beam_runner_api_pb2.PTransform]:
    """The transforms that a runner runs, by name: composites and what does nothing are left out."""
    return {
        step.unique_name: step
        for step in proto.components.transforms.values()
        if not step.subtransforms and step.inputs != step.outputs
    }


@TRANSLATIONS
def test_between_a_source_and_its_encoded_rows_is_one_plain_step_with_one_consumer(translate: Translate) -> None:
    proto = translate()
    every = steps(proto)
    chain = [every[step] for step in CHAIN]
    for step, following in itertools.pairwise(chain):
        [handed_on] = [
            collection for tag, collection in step.outputs.items() if collection in following.inputs.values()
        ]
        consumers = [s.unique_name for s in every.values() if handed_on in s.inputs.values()]
        assert consumers == [following.unique_name]
        assert list(following.inputs.values()) == [handed_on]
    assert {step.spec.urn for step in chain} == {PARDO}
    assert len({step.environment_id for step in chain}) == 1
    for step in chain:
        payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
        stateful = payload.state_specs or payload.timer_family_specs
        assert not (payload.side_inputs or stateful or payload.requires_stable_input), step.unique_name


@TRANSLATIONS
def test_what_leaves_a_chain_is_masked_or_holds_no_values(translate: Translate) -> None:
    """Dead letters of what is not masked hold coordinates only, others a masked change."""
    every = steps(translate())
    inside = {collection for step in CHAIN for collection in every[step].inputs.values()}
    leaving = {
        f"{step}.{tag}" for step in CHAIN for tag, collection in every[step].outputs.items() if collection not in inside
    }
    assert leaving == {f"{CHAIN[-1]}.{output}" for output in ("None", "positions", "clock", "dead_letters")}


@TRANSLATIONS
def test_state_is_kept_by_keys_of_a_type_and_each_step_has_the_input_that_it_is_for(translate: Translate) -> None:
    """A key without a type is pickled, and a pickle is nothing to compare keys by."""
    proto = translate()
    coders, collections = proto.components.coders, proto.components.pcollections
    keys, fed = {}, {}
    for name, step in steps(proto).items():
        if step.spec.urn == PARDO and beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).state_specs:
            [given] = step.inputs.values()
            coder = coders[collections[given].coder_id]
            assert coder.spec.urn == common_urns.coders.KV.urn
            keys[name] = coders[coder.component_coder_ids[0]].spec.urn
            [fed[name]] = [each for each, before in steps(proto).items() if given in before.outputs.values()]
    text, data = common_urns.coders.STRING_UTF8.urn, common_urns.coders.BYTES.urn
    assert set(keys.items()) == {
        ("AppendRows/ParDo(AppendRows)/ParDo(AppendRows)", text),
        ("TrackPositions/TrackPosition", data),
        ("RetryDeadLetters", data),
    }
    assert fed["RetryDeadLetters"] == CHAIN[-1]


@TRANSLATIONS
def test_what_comes_before_a_source_holds_no_records(translate: Translate) -> None:
    """The sources themselves, as elements, and restrictions with partition tokens: what a reader is made from."""
    every = steps(translate())
    before, wanted = [], [CHAIN[0]]
    while wanted:
        inputs = set(every[wanted.pop()].inputs.values())
        found = [s.unique_name for s in every.values() if inputs & set(s.outputs.values())]
        before += found
        wanted += found
    assert before and all(step.startswith("Read/ReadWithBacklog/Create/") for step in before)


@TRANSLATIONS
def test_beam_s_published_fusion_makes_one_stage_of_source_mask_and_encoded_rows(translate: Translate) -> None:
    _, stages = translations.create_and_optimize_stages(
        copy.deepcopy(translate()),
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.annotate_stateful_dofns_as_roots,
            translations.fix_side_input_pcoll_coders,
            translations.expand_sdf,
            translations.sink_flattens,
            translations.greedily_fuse,
        ],
        known_runner_urns=frozenset(),
    )
    fused = [{step.unique_name for step in stage.transforms} for stage in stages]
    # The runner hands restrictions to an SDF's last part.
    chain = {f"{CHAIN[0]}/Process", *CHAIN[1:]}
    [home] = [stage for stage in fused if chain & stage]
    assert chain <= home


@TRANSLATIONS
def test_no_step_of_the_job_is_of_another_language(translate: Translate) -> None:
    """Beam's own ReadChangeStreamFromSpanner and WriteToBigQuery need Java at launch and on the workers."""
    components = translate().components
    assert {step.spec.urn for step in components.transforms.values()}.isdisjoint({"beam:transform:external:v1"})
    capabilities = {capability for each in components.environments.values() for capability in each.capabilities}
    assert not [capability for capability in capabilities if "sdk_base:apache/beam_java" in capability]
    assert all(step.environment_id in {"", *components.environments} for step in components.transforms.values())
    payloads = [each.payload.lower() for each in components.environments.values()]
    assert payloads and not [payload for payload in payloads if b"java" in payload]
