"""One trace from the command line to the stages, over the queue in between; as a collector sees it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from outboard import telemetry
from outboard.rpc import tracing
from outboard.v1 import job_service_pb2 as messages
from services.orchestrator.database import JobDatabase, sqlite_url
from tests.integration.orchestrator_bench import bench, noise_file
from tests.integration.otlp_receiver import Collected, collector

_ROOT = Path(__file__).resolve().parents[2]
SERVICE = "outboard.v1"


@asynccontextmanager
async def _traced(collected: Collected) -> AsyncIterator[None]:
    """Sends the spans of this process to the collector, all of them before it ends."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collected.address, insecure=True)))
    telemetry.use_provider(provider)
    try:
        yield
    finally:
        telemetry.use_provider(None)
        await asyncio.to_thread(provider.shutdown)


async def test_one_trace_from_the_command_to_every_stage(tmp_path: Path) -> None:
    """`outboard master`, its CreateJob, each step and each stage call of the job are one trace, each below the one that
    asked for it."""
    song = tmp_path / "song.wav"
    song.write_bytes(noise_file(1, 1.0))
    async with collector() as collected:
        async with _traced(collected), bench(tmp_path / "store") as mesh:
            command = [
                sys.executable,
                "-c",
                "from outboard.cli import main; main()",
                "master",
                str(song),
                "-o",
                str(tmp_path / "out"),
            ]
            environment = {**os.environ, "OUTBOARD_TELEMETRY_ENDPOINT": collected.address}
            process = await asyncio.create_subprocess_exec(
                *command, "--server", mesh.address, "--json", cwd=_ROOT, env=environment
            )
            assert await process.wait() == 0
        (root,) = [span for span in collected.spans if span.name == "outboard master"]
        stages = {
            "SeparatorService/Separate": "Steps.separate",
            "RestorerService/Restore": "Steps.restore",
            "MixerService/Mix": "Steps.mix",
            "MasterService/Master": "Steps.master",
        }
        for method, step in stages.items():
            name, create = f"{SERVICE}.{method}", f"{SERVICE}.JobService/CreateJob"
            ways = [collected.way_up(span) for span in collected.spans if span.name == name]
            assert [name, name, step, "job", create, create, "outboard master"] in ways, f"{method}: {ways}"
        astray = {span.name for span in collected.spans if span.trace_id != root.trace_id}
        assert not {name for name in astray if not name.endswith("/ListEngines")}, astray


async def test_trace_is_kept_with_the_job(tmp_path: Path) -> None:
    """The span that created a job stands in its row, so that the trace goes on after a restart; none is no fault."""
    async with collector() as collected, bench(tmp_path) as mesh:
        untraced = await mesh.client.wait((await mesh.job(1)).name)
        async with _traced(collected):
            with tracing.span("caller"):
                expected = (tracing.traceparent() or "").split("-")[1]
                job = await mesh.client.wait((await mesh.job(2)).name)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        kept = dict(database.execute("SELECT id, traceparent FROM outboard_jobs"))
    assert kept[untraced.name.removeprefix("jobs/")] is None
    assert kept[job.name.removeprefix("jobs/")].split("-")[1] == expected


def test_store_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """A jobs table without the column gets it when it is opened, and keeps its rows."""
    file = tmp_path / "jobs.sqlite"
    JobDatabase(sqlite_url(file)).close()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("ALTER TABLE outboard_jobs DROP COLUMN traceparent")
        database.execute("INSERT INTO outboard_jobs VALUES ('a','t',NULL,'',1,x'','[]',x'',NULL,NULL,0,0,NULL)")
    database = JobDatabase(sqlite_url(file))
    row = database.job("t", "a")
    database.close()
    assert row is not None
    assert row.traceparent is None
    assert row.state == messages.Job.STATE_PENDING
