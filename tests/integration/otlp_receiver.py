"""A collector in this process that keeps the spans it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass
class Collected(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Every span so far, and the service that each came from."""

    address: str = ""
    spans: list[trace_pb2.Span] = field(default_factory=list)

    async def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def way_up(self, span: trace_pb2.Span) -> list[str]:
        """Names from a span to the root of its trace; a span that never came ends it as ``?``."""
        known = {entry.span_id: entry for entry in self.spans}
        names = [span.name]
        while span.parent_span_id:
            if span.parent_span_id not in known:
                return [*names, "?"]
            span = known[span.parent_span_id]
            names.append(span.name)
        return names


@asynccontextmanager
async def collector() -> AsyncIterator[Collected]:
    """The collector, listening on a free port."""
    collected = Collected()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collected, server)
    collected.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collected
    finally:
        await server.stop(None)
