"""Jobs, uploads, and which results each job refers to: four tables on SQLite or Postgres.

Every look-up is bounded by the tenant. All methods block (a few milliseconds): worker threads call them. A job that has
ended never changes again, so writers race safely: each update names the states it may follow.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from outboard.errors import Unavailable

_METADATA = sa.MetaData()
_JOBS = sa.Table(
    "outboard_jobs",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("specification", sa.LargeBinary, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("progress", sa.LargeBinary, nullable=False),
    sa.Column("error", sa.LargeBinary),
    sa.Column("report", sa.LargeBinary),
    sa.Column("create_time", sa.Float, nullable=False),
    sa.Column("update_time", sa.Float, nullable=False),
    sa.Column("end_time", sa.Float),
    sa.Column("traceparent", sa.String(64)),
    sa.UniqueConstraint("tenant", "request_id"),
    sa.Index("outboard_jobs_page", "tenant", "create_time", "id"),
)
_ARTIFACTS = sa.Table(
    "outboard_artifacts",
    _METADATA,
    sa.Column("job", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("key", sa.String(900), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("media_type", sa.String(100), nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
)
_USES = sa.Table(
    "outboard_uses",
    _METADATA,
    sa.Column("job", sa.String(64), primary_key=True),
    sa.Column("prefix", sa.String(900), primary_key=True),
    sa.Index("outboard_uses_prefix", "prefix"),
)
_UPLOADS = sa.Table(
    "outboard_uploads",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("key", sa.String(900)),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("update_time", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class JobRow:
    """One job as stored.

    `specification`, `error`, `report` are serialised protobuf messages, `progress` is a Job with nothing but progress;
    `inputs` is the JSON list of (object key, digest) of its uploads, `traceparent` the span that created it.
    """

    id: str
    tenant: str
    request_id: str | None
    fingerprint: str
    state: int
    specification: bytes
    inputs: str
    progress: bytes
    error: bytes | None
    report: bytes | None
    create_time: float
    update_time: float
    end_time: float | None
    traceparent: str | None = None


@dataclass(frozen=True)
class ArtifactRow:
    """One artifact of a job and the object that holds it."""

    name: str
    key: str
    size: int
    sha256: str
    media_type: str
    stage: int


@dataclass(frozen=True)
class UploadRow:
    """One upload; `key` and `sha256` are set once it is complete."""

    id: str
    tenant: str
    key: str | None
    size: int
    sha256: str | None
    update_time: float


class JobDatabase:
    """The tables. `url` is an SQLAlchemy URL; a folder's own file is ``sqlite:////folder/jobs.sqlite``."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        with self._speaking():
            _METADATA.create_all(self._engine)
            self._add_new_columns()

    def close(self) -> None:
        self._engine.dispose()

    # Jobs

    def insert_job(self, row: JobRow) -> JobRow:
        """Stores a job; where the tenant's request id is taken already, returns that job instead."""
        try:
            with self._begin() as connection:
                connection.execute(_JOBS.insert().values(**vars(row)))
        except sa.exc.IntegrityError:
            found = self.job_of_request(row.tenant, row.request_id)
            if found is None:
                raise
            return found
        return row

    def job_of_request(self, tenant: str, request_id: str | None) -> JobRow | None:
        """The job that this tenant's request id has started; none for no request id."""
        if not request_id:
            return None
        with self._begin() as connection:
            found = connection.execute(
                sa.select(_JOBS).where(_JOBS.c.tenant == tenant, _JOBS.c.request_id == request_id)
            ).one_or_none()
        return JobRow(**found._mapping) if found else None

    def job(self, tenant: str, job_id: str) -> JobRow | None:
        """One job of this tenant."""
        with self._begin() as connection:
            found = connection.execute(
                sa.select(_JOBS).where(_JOBS.c.tenant == tenant, _JOBS.c.id == job_id)
            ).one_or_none()
        return JobRow(**found._mapping) if found else None

    def page(
        self, tenant: str, states: Collection[int], limit: int, after: tuple[float, str] | None
    ) -> Sequence[JobRow]:
        """Jobs of a tenant, the newest first, after the (create time, id) of the last one seen."""
        query = sa.select(_JOBS).where(_JOBS.c.tenant == tenant)
        if states:
            query = query.where(_JOBS.c.state.in_(list(states)))
        if after:
            moment, job_id = after
            older = sa.or_(_JOBS.c.create_time < moment, sa.and_(_JOBS.c.create_time == moment, _JOBS.c.id < job_id))
            query = query.where(older)
        query = query.order_by(_JOBS.c.create_time.desc(), _JOBS.c.id.desc()).limit(limit)
        with self._begin() as connection:
            return [JobRow(**found._mapping) for found in connection.execute(query)]

    def unfinished(self, ended: Collection[int]) -> Sequence[JobRow]:
        """Jobs of all tenants that are in none of the ended states (for recovery only)."""
        with self._begin() as connection:
            query = sa.select(_JOBS).where(_JOBS.c.state.not_in(list(ended))).order_by(_JOBS.c.create_time)
            return [JobRow(**found._mapping) for found in connection.execute(query)]

    def advance(self, job_id: str, ended: Collection[int], **values: Any) -> bool:
        """Updates a job unless it has ended; tells whether it did."""
        with self._begin() as connection:
            changed = connection.execute(
                _JOBS.update()
                .where(_JOBS.c.id == job_id, _JOBS.c.state.not_in(list(ended)))
                .values(update_time=time.time(), **values)
            )
        return bool(changed.rowcount)

    def succeed(self, job_id: str, ended: Collection[int], artifacts: Sequence[ArtifactRow], **values: Any) -> bool:
        """Ends a job together with its artifacts, in one transaction, unless it has ended already."""
        now = time.time()
        with self._begin() as connection:
            changed = connection.execute(
                _JOBS.update()
                .where(_JOBS.c.id == job_id, _JOBS.c.state.not_in(list(ended)))
                .values(update_time=now, end_time=now, **values)
            )
            if not changed.rowcount:
                return False
            connection.execute(_ARTIFACTS.delete().where(_ARTIFACTS.c.job == job_id))
            if artifacts:
                connection.execute(_ARTIFACTS.insert(), [{"job": job_id, **vars(row)} for row in artifacts])
        return True

    def delete_job(self, job_id: str) -> list[str]:
        """Removes a job; returns the result prefixes that no job uses any more."""
        with self._begin() as connection:
            prefixes = set(connection.scalars(sa.select(_USES.c.prefix).where(_USES.c.job == job_id)))
            connection.execute(_USES.delete().where(_USES.c.job == job_id))
            connection.execute(_ARTIFACTS.delete().where(_ARTIFACTS.c.job == job_id))
            connection.execute(_JOBS.delete().where(_JOBS.c.id == job_id))
            used = set(connection.scalars(sa.select(_USES.c.prefix).where(_USES.c.prefix.in_(prefixes))))
        return sorted(prefixes - used)

    def specifications(
        self, *, states: Collection[int] = (), ended_before: float | None = None, beyond: int = 0
    ) -> Iterator[tuple[str, bytes]]:
        """Id and specification of the jobs of all tenants, the last ended first.

        Args:
            states: only jobs in one of these; none: all.
            ended_before: only jobs that ended before this moment.
            beyond: leaves out so many.
        """
        query = sa.select(_JOBS.c.id, _JOBS.c.specification)
        if states:
            query = query.where(_JOBS.c.state.in_(list(states)))
        if ended_before is not None:
            query = query.where(_JOBS.c.end_time < ended_before)
        query = query.order_by(_JOBS.c.end_time.desc(), _JOBS.c.id).offset(beyond)
        with self._begin() as connection:
            for row in connection.execute(query):
                yield row.id, row.specification

    def drop_strays(self) -> None:
        """Forgets references and artifacts of jobs that are gone (a step of a deleted job may note one more)."""
        known = sa.select(_JOBS.c.id)
        with self._begin() as connection:
            connection.execute(_USES.delete().where(_USES.c.job.not_in(known)))
            connection.execute(_ARTIFACTS.delete().where(_ARTIFACTS.c.job.not_in(known)))

    # What jobs refer to

    def use(self, job_id: str, prefix: str) -> None:
        """Notes that a job refers to a stored result (or upload)."""
        with self._begin() as connection:
            found = connection.execute(
                sa.select(_USES.c.job).where(_USES.c.job == job_id, _USES.c.prefix == prefix)
            ).first()
            if not found:
                connection.execute(_USES.insert().values(job=job_id, prefix=prefix))

    def uses_of(self, job_ids: Collection[str]) -> set[str]:
        """Everything that these jobs refer to."""
        with self._begin() as connection:
            return set(connection.scalars(sa.select(_USES.c.prefix).where(_USES.c.job.in_(list(job_ids)))))

    def artifacts(self, job_ids: Collection[str]) -> dict[str, list[ArtifactRow]]:
        """Artifacts of each job, by name."""
        result: dict[str, list[ArtifactRow]] = {job_id: [] for job_id in job_ids}
        query = sa.select(_ARTIFACTS).where(_ARTIFACTS.c.job.in_(list(job_ids))).order_by(_ARTIFACTS.c.name)
        with self._begin() as connection:
            for found in connection.execute(query):
                values = dict(found._mapping)
                result[values.pop("job")].append(ArtifactRow(**values))
        return result

    def delivered(self) -> set[str]:
        """Objects that jobs of all tenants deliver: what the last stage of each made, and what is of no stage (preview,
        report).
        """
        last = sa.select(_ARTIFACTS.c.job, sa.func.max(_ARTIFACTS.c.stage).label("stage")).group_by(_ARTIFACTS.c.job)
        ends = last.subquery()
        query = (
            sa.select(_ARTIFACTS.c.key)
            .join(ends, ends.c.job == _ARTIFACTS.c.job)
            .where(sa.or_(_ARTIFACTS.c.stage == ends.c.stage, _ARTIFACTS.c.stage == 0))
        )
        with self._begin() as connection:
            return set(connection.scalars(query))

    # Uploads

    def put_upload(self, row: UploadRow) -> None:
        """Stores or replaces an upload."""
        with self._begin() as connection:
            connection.execute(_UPLOADS.delete().where(_UPLOADS.c.id == row.id))
            connection.execute(_UPLOADS.insert().values(**vars(row)))

    def upload(self, tenant: str, upload_id: str) -> UploadRow | None:
        """One upload of this tenant."""
        with self._begin() as connection:
            found = connection.execute(
                sa.select(_UPLOADS).where(_UPLOADS.c.tenant == tenant, _UPLOADS.c.id == upload_id)
            ).one_or_none()
        return UploadRow(**found._mapping) if found else None

    def drop_uploads(self, older_than: float) -> list[UploadRow]:
        """Forgets uploads last touched before a moment; returns them, so that their parts can be removed."""
        with self._begin() as connection:
            found = connection.execute(sa.select(_UPLOADS).where(_UPLOADS.c.update_time < older_than))
            rows = [UploadRow(**row._mapping) for row in found]
            connection.execute(_UPLOADS.delete().where(_UPLOADS.c.id.in_([row.id for row in rows])))
        return rows

    def _add_new_columns(self) -> None:
        """Brings the tables of an earlier version up to date; a column that joins is nullable."""
        with self._engine.begin() as connection:
            for table in _METADATA.sorted_tables:
                known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                for column in table.columns:
                    if column.name not in known:
                        kind = column.type.compile(self._engine.dialect)
                        connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._speaking(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:
            raise Unavailable("the job database does not answer", retry_after_seconds=2.0) from error


def sqlite_url(path: Path) -> str:
    """SQLAlchemy URL of a database file."""
    return f"sqlite:///{path.absolute()}"


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last progress, never the file
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
