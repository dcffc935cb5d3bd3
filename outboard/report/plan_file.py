"""A job's plans as a file that a person reads, edits and gives back.

The file is a job in JSON that has nothing but ``mix_plan`` and ``master_plan``, with the contract's field names in the
contract's order and every number written out, zeros too.
"""

from __future__ import annotations

import json
from typing import Any

from outboard.errors import InvalidInput
from outboard.rpc.json_text import fields_in_order, read_json
from outboard.v1 import job_service_pb2

PLAN_NAME = "plan.json"
"""What the file is called among a job's artifacts."""
_PLANS = ("mix_plan", "master_plan")


def plan_text(report: job_service_pb2.JobReport) -> str:
    """The file of a job that has decided a mix, a master or both."""
    plans: dict[str, Any] = {}
    if report.HasField("mix"):
        plans["mix_plan"] = fields_in_order(report.mix.plan)
    if report.HasField("mastering"):
        plans["master_plan"] = fields_in_order(report.mastering.plan)
    return json.dumps(plans, indent=2, ensure_ascii=False) + "\n"


def read_plans(data: bytes, name: str) -> job_service_pb2.Job:
    """The plans in a file, as fields of a job that has nothing else.

    Args:
        data: of the file.
        name: of the file, for messages.

    Raises:
        InvalidInput: it is no JSON, or holds something that no plan has, by its place; see `read_json`.
    """
    job = job_service_pb2.Job()
    read_json(data, job, name=name, field="plan", allowed=_PLANS)
    if not job.ListFields():
        raise InvalidInput(f"{name!r} holds no plan: there is neither {' nor '.join(_PLANS)} in it", field="plan")
    return job
