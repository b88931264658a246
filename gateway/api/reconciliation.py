"""POST /api/reconciliation/run, POST /api/reconciliation/upload, GET /api/reconciliation/runs: the operator's."""

import asyncio
import hashlib
import tempfile
from typing import Annotated, BinaryIO

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Route
from gateway.core.errors import CallerError, StoreFull
from gateway.core.payment import Method
from gateway.core.reconciliation import FileFormat, Run, RunState
from gateway.flows.reconciliation import Ask, Reconciliation
from gateway.ports import Response
from gateway.providers.settlement_source import CHUNK_BYTES, FILE_BYTES_MAX
from gateway.runtime import rfc3339
from gateway.vault import Vault

PAGE, PAGE_MAX = 50, 200
AFTER_ALL = "rec_~"  # sorts after every id
OPERATOR_CLAIMS = ":operator"  # whose idempotency keys the operator's are; no merchant can be called so
UPLOAD_PAUSE_S_MAX = 30.0  # between two pieces of an upload
FORMATS: dict[str, FileFormat] = {"text/csv": "csv", "application/xml": "camt.053", "text/xml": "camt.053"}

Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" + wire.END, extra_json_schema={"format": "date"})]


class RunRequest(wire.Request, frozen=True, kw_only=True):
    """`date` is a day in UTC. One that is not over is compared with what there is of it so far."""

    provider: Method
    date: Date
    format: FileFormat = "csv"


class UploadQuery(wire.Request, frozen=True, kw_only=True):
    provider: Method
    date: Date


class RunQuery(wire.Request, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: wire.ShortId | None = None


class BreakCounts(msgspec.Struct, frozen=True):
    amount_mismatch: int
    missing_in_provider: int
    missing_in_gateway: int
    duplicate: int
    late: int


class RunData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`rows` are the file's, `movements` those of our books; while it is `running`, `rows` grows and the other counts are those of before.
    `uncovered` are movements in currencies that the file is not about. `failed`: nothing of this file was recorded, and `error` says why.
    `runs` is how often this day was reconciled."""

    run_id: str = msgspec.field(name="runID")
    provider: Method
    date: str
    format: FileFormat
    source: str
    status: RunState
    error: str | None = None
    rows: int
    movements: int
    matched: int
    breaks: BreakCounts
    uncovered: int
    runs: int
    created_at: str
    updated_at: str


_runs = msgspec.json.Decoder(RunRequest)


class ReconciliationHandlers:
    def __init__(self, *, reconciliation: Reconciliation, keys: Keys, vault: Vault) -> None:
        self._reconciliation = reconciliation
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        root, tag = "/api/reconciliation", "reconciliation"
        return [
            Route(
                method="POST",
                path=root + "/run",
                handler=self.run,
                summary="Compare a day of our books with the provider's settlement file (operator)",
                tag=tag,
                takes=RunRequest,
                gives=RunData,
                status=201,
                errors=(403, 409),
                idempotent=True,
            ),
            Route(
                method="POST",
                path=root + "/upload",
                handler=self.upload,
                summary="Compare with a settlement file that is sent as the body: text/csv, or application/xml for camt.053 (operator)",
                tag=tag,
                query=UploadQuery,
                accepts=tuple(FORMATS),
                gives=RunData,
                status=201,
                errors=(403, 409),
                idempotent=True,
            ),
            Route(
                method="GET",
                path=root + "/runs",
                handler=self.runs,
                summary="Reconciliations, the newest first (operator)",
                tag=tag,
                query=RunQuery,
                gives=RunData,
                listed=True,
                errors=(403,),
            ),
            Route(
                method="GET",
                path=root + "/runs/{runID}",
                handler=self.get_run,
                summary="A reconciliation, and how far it is (operator)",
                tag=tag,
                gives=RunData,
                errors=(403, 404),
            ),
        ]

    async def run(self, request: web.Request) -> web.Response:
        self._keys.operator(request)
        body = await wire.read_body(request)
        asked = wire.decode(_runs, body)
        key = idempotency.key_of(request, OPERATOR_CLAIMS, body, self._vault)
        ask = Ask(provider=asked.provider, date=asked.date, format=asked.format)
        response = await self._reconciliation.run(ask, key, _render_run)
        return wire.json_response(response.body, response.status)

    async def upload(self, request: web.Request) -> web.Response:
        self._keys.operator(request)
        asked = wire.query(request, UploadQuery)
        file_format = FORMATS.get(request.content_type)
        if file_format is None or request.headers.get("Content-Encoding", "identity") != "identity":
            raise CallerError(415, "unsupported_media_type", f"send the file as it is, as Content-Type: {', '.join(FORMATS)}")
        file = tempfile.TemporaryFile(prefix="paydrome-upload-")  # noqa: SIM115 - the flow closes it
        try:
            digest = await _receive(request, file)
            key = idempotency.key_of(
                request, OPERATOR_CLAIMS, f"{asked.provider}\n{asked.date}\n".encode() + digest, self._vault
            )
        except BaseException:
            file.close()
            raise
        ask = Ask(provider=asked.provider, date=asked.date, format=file_format)
        response = await self._reconciliation.run(ask, key, _render_run, file)
        return wire.json_response(response.body, response.status)

    async def runs(self, request: web.Request) -> web.Response:
        self._keys.operator(request)
        asked = wire.query(request, RunQuery)
        found = await self._reconciliation.runs(asked.cursor or AFTER_ALL, asked.limit + 1)
        page = found[: asked.limit]
        more = page[-1].id if len(found) > len(page) else None
        return wire.listed([run_data(run) for run in page], wire.Pagination(asked.limit, more))

    async def get_run(self, request: web.Request) -> web.Response:
        self._keys.operator(request)
        return wire.success(run_data(await self._reconciliation.found(request.match_info["runID"])))


async def _receive(request: web.Request, file: BinaryIO) -> bytes:
    """Writes the body into a file, from its start; returns its SHA-256. Raises CallerError 400, 408 or 413."""
    digest, size = hashlib.sha256(), 0
    try:
        while True:
            async with asyncio.timeout(UPLOAD_PAUSE_S_MAX):
                chunk = await request.content.read(CHUNK_BYTES)
            if not chunk:
                break
            size += len(chunk)
            if size > FILE_BYTES_MAX:
                raise CallerError(413, "request_too_large", f"the file is larger than {FILE_BYTES_MAX} bytes")
            digest.update(chunk)
            file.write(chunk)
        file.seek(0)
    except TimeoutError as error:
        raise CallerError(408, "request_timeout", f"nothing came for {UPLOAD_PAUSE_S_MAX:g} s") from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise CallerError(400, "invalid_request", "the body breaks off, or is not what its headers say") from error
    except OSError as error:
        raise StoreFull(f"an upload cannot be kept: {error.strerror}") from error
    return digest.digest()


def run_data(run: Run) -> RunData:
    return RunData(
        run_id=run.id,
        provider=run.provider,
        date=run.date,
        format=run.format,
        source=run.source,
        status=run.state,
        error=run.error,
        rows=run.rows,
        movements=run.movements,
        matched=run.matched,
        breaks=BreakCounts(run.amount_mismatch, run.missing_in_provider, run.missing_in_gateway, run.duplicate, run.late),
        uncovered=run.uncovered,
        runs=run.runs,
        created_at=rfc3339(run.created_at_ms),
        updated_at=rfc3339(run.updated_at_ms),
    )


def _render_run(run: Run) -> Response:
    return Response(201, wire.encode(wire.Success(True, run_data(run))))
