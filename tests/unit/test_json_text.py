"""JSON that a person wrote, held against the contract; and plans written for a person."""

from __future__ import annotations

import json

import pytest

from outboard.errors import InvalidInput
from outboard.report.plan_file import plan_text, read_plans
from outboard.rpc.json_text import read_json
from outboard.v1 import job_service_pb2, master_service_pb2, mixer_service_pb2, processor_pb2

PLUGIN = processor_pb2.Processor(label="air", plugin=processor_pb2.Plugin(name="A", parameters={"b": 1, "a": 2}))
MIX = mixer_service_pb2.MixPlan(
    strips=[
        mixer_service_pb2.Strip(
            stem="vocals",
            role="ROLE_LEAD_VOCAL",
            gain_db=-1.0 / 3.0,
            chain=[PLUGIN],
            envelope=[mixer_service_pb2.EnvelopePoint(frame=2**53 + 1)],
        )
    ],
    peak_target_dbfs=-6.0,
)
MASTER = master_service_pb2.MasterPlan(intent="MASTER_INTENT_LOUD", engine="chain", ceiling_dbtp=-1.0, seed=7)


def _read(text: str | bytes) -> job_service_pb2.Job:
    return read_plans(text if isinstance(text, bytes) else text.encode(), "plan.json")


def test_what_is_written_is_read_back_bit_by_bit() -> None:
    """Numbers, large frames, maps and oneofs of a plan survive the file."""
    report = job_service_pb2.JobReport(mix={"plan": MIX}, mastering={"plan": MASTER})
    assert _read(plan_text(report)) == job_service_pb2.Job(mix_plan=MIX, master_plan=MASTER)
    alone = job_service_pb2.JobReport(mastering={"plan": MASTER})
    assert _read(plan_text(alone)) == job_service_pb2.Job(master_plan=MASTER)


def test_every_number_is_there_to_be_edited() -> None:
    """Zeros are written out, in the order of the contract; optional numbers that the planner left open are not."""
    strip = json.loads(plan_text(job_service_pb2.JobReport(mix={"plan": MIX})))["mix_plan"]["strips"][0]
    assert list(strip) == [
        "stem", "role", "gain_db", "pan", "polarity_inverted", "chain", "sends", "bus", "envelope", "pan_law",
    ]  # fmt: skip
    assert (strip["pan"], strip["polarity_inverted"], strip["bus"]) == (0.0, False, "")


def test_names_of_both_forms_are_read() -> None:
    """The contract's names and JSON's camel case; null stands for a field that is left out."""
    job = _read('{"mixPlan": {"strips": [{"stem": "a", "gainDb": 1, "bus": null}], "trim_db": 2}}')
    assert (job.mix_plan.strips[0].gain_db, job.mix_plan.trim_db) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("{", "plan", "no JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        (b"\xff\xfe", "plan", "no text in UTF-8"),
        ("[]", "plan", "an object in braces stands here, not []"),
        ("{}", "plan", "holds no plan: there is neither mix_plan nor master_plan in it"),
        ('{"mix": {}}', "mix", "no field 'mix'; did you mean 'mix_plan'?"),
        ('{"display_name": "x"}', "display_name", "no field 'display_name'"),
        ('{"mix_plan": {"trim_db": NaN}}', "plan", "NaN is no number"),
        ('{"mix_plan": {"trim_db": 1, "trim_db": 2}}', "plan", "'trim_db' stands twice"),
        ('{"mix_plan": {"strips": {}}}', "mix_plan.strips", "a list in brackets"),
        ('{"mix_plan": {"strips": [1]}}', "mix_plan.strips[0]", "an object in braces"),
        ('{"mix_plan": {"trim_db": true}}', "mix_plan.trim_db", "a number stands here, not true"),
        ('{"mix_plan": {"notes": [3]}}', "mix_plan.notes[0]", "a text in quotes"),
        (
            '{"mix_plan": {"strips": [{"polarity_inverted": 1}]}}',
            "mix_plan.strips[0].polarity_inverted",
            "true or false",
        ),
        ('{"master_plan": {"seed": 1.5}}', "master_plan.seed", "a whole number stands here, not 1.5"),
        ('{"master_plan": {"seed": "x"}}', "master_plan.seed", "a whole number"),
        ('{"master_plan": {"intent": "loud"}}', "master_plan.intent", 'no "loud"'),
        ('{"master_plan": {"limiter": {"holdms": 1}}}', "master_plan.limiter.holdms", "did you mean 'hold_ms'?"),
        (
            '{"mix_plan": {"master_chain": [{"plugin": {"parameters": {"a": "x"}}}]}}',
            "mix_plan.master_chain[0].plugin.parameters[a]",
            "a number",
        ),
        (
            '{"mix_plan": {"master_chain": [{"equalizer": {}, "compressor": {}}]}}',
            "plan",
            "oneof",
        ),
        ("[" * 100_000, "plan", "nested"),
        (
            '{"mix_plan": {"master_chain": [' + '{"plugin": {"stand_in": ' * 400 + "{}" + "}}" * 400 + "]}}",
            "plan",
            "nested",
        ),
    ],
)
def test_slips_are_told_by_their_place(text: str | bytes, place: str, says: str) -> None:
    """INVALID_ARGUMENT with the place inside the file and what may stand there."""
    with pytest.raises(InvalidInput) as caught:
        _read(text)
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert caught.value.violations[0].field == place
    assert says in caught.value.message, caught.value.message


def test_every_slip_is_told_at_once() -> None:
    """One violation per place."""
    with pytest.raises(InvalidInput) as caught:
        _read('{"mix_plan": {"trim": 1, "strips": [{"pn": 0}]}, "master_plan": {"drive_db": "x"}}')
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["mix_plan.trim", "mix_plan.strips[0].pn", "master_plan.drive_db"]


def test_a_whole_job_is_read_with_its_times() -> None:
    """Any message is read so; the forms that protobuf has for times are left to it."""
    job = job_service_pb2.Job()
    text = b'{"create_time": "2026-11-21T12:00:00Z", "tags": {"title": "A"}, "stages": ["STAGE_MIX"]}'
    read_json(text, job, name="job.json", field="job")
    assert job.create_time.seconds > 0
    with pytest.raises(InvalidInput, match="'stagse'; did you mean 'stages'"):
        read_json(b'{"stagse": []}', job, name="job.json", field="job")
