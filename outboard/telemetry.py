"""Structured logs and OpenTelemetry traces.

``configure`` is called once by every process. Logs go to standard error, one JSON object a line, with the fields that
``bind`` put in force (tenant, job, stage) and the ids of the current span. Traces are made only where an endpoint is
configured: without one the OpenTelemetry API's no-op tracer answers, and the cost is a few dictionary look-ups a call.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from outboard.settings import TelemetrySettings

_EXPORT_SECONDS = 5.0  # a collector that is away holds up a process no longer than this when it ends
_NOTHING: Mapping[str, str] = MappingProxyType({})
_fields: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("outboard_log_fields", default=_NOTHING)
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _State:
    """The provider of this process, so that ``shutdown`` finds it."""

    provider: TracerProvider | None = None


@contextlib.contextmanager
def bind(**fields: str) -> Iterator[None]:
    """Put fields (tenant, job, stage ...) on every log record of this task, and of threads that run in its context."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, service, bound and extra fields, trace, traceback."""

    def __init__(self, service_name: str) -> None:
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        instant = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, object] = {
            "time": f"{instant}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": self._service_name,
            **_fields.get(),
        }
        document.update({key: value for key, value in vars(record).items() if key not in _RECORD_ATTRIBUTES})
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            document["trace_id"] = f"{span.trace_id:032x}"
            document["span_id"] = f"{span.span_id:016x}"
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for a person, with the bound fields at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in vars(record).items() if key not in _RECORD_ATTRIBUTES}
        fields = " ".join(f"{key}={value}" for key, value in {**_fields.get(), **extra}.items())
        return f"{super().format(record)} {fields}".rstrip()


def configure(service_name: str, settings: TelemetrySettings | None = None) -> None:
    """Set up logs, and traces where an endpoint is configured. Calling it again replaces what was there.

    Args:
        service_name: for instance ``separator``; a field of every log record and the resource name of every span.
        settings: from the environment unless given.
    """
    settings = settings or TelemetrySettings()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service_name) if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for chatty in ("numba", "matplotlib", "asyncio", "grpc"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    configure_traces(service_name, settings)


def configure_traces(service_name: str, settings: TelemetrySettings | None = None) -> None:
    """The traces alone, for a program whose standard error is for a person; nothing without an endpoint."""
    settings = settings or TelemetrySettings()
    if not settings.endpoint:
        return
    # Imported here: the exporter costs 0.2 s and is not wanted where nothing is traced.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"outboard-{service_name}", "service.namespace": "outboard"}),
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
    )
    insecure = not settings.endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=insecure, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    shutdown()
    _State.provider = provider
    trace.set_tracer_provider(provider)


def tracer(name: str) -> trace.Tracer:
    """The tracer for a module; a no-op one unless ``configure`` was given an endpoint."""
    if _State.provider is not None:
        return _State.provider.get_tracer(name)
    return trace.get_tracer(name)


def use_provider(provider: TracerProvider | None) -> None:
    """Trace to this provider from now on (tests, or a program that has its own)."""
    _State.provider = provider


def shutdown() -> None:
    """Send what is still held and stop tracing. Call it before the collector goes away."""
    provider, _State.provider = _State.provider, None
    if provider is not None:
        provider.shutdown()
