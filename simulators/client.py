"""A small synchronous client of the admin API, for the command line and for tests. No dependency, no proxy, no retry."""

import http.client
import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 60.0  # a snapshot of a million charges takes 15 s; a lost answer never comes

_opener = build_opener(ProxyHandler({}))  # these are local: a proxy of the environment cannot reach them


class AdminError(Exception):
    """The simulators said no, or nothing. `status` is that of HTTP, `None` where there was no answer."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(sentence)


class Admin:
    """Controls the simulators at `url`, or one tenant there. Each method raises AdminError."""

    def __init__(self, url: str, tenant: str | None = None) -> None:
        self.base = url.rstrip("/")
        self.url = self.base + (f"/t/{quote(tenant, safe='')}" if tenant else "")

    def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        """The answer to one call, decoded."""
        text = self.text(method, path, body)
        try:
            return json.loads(text)
        except ValueError:
            raise AdminError(f"{self.url}{path} did not answer in JSON; is it another service?") from None

    def text(self, method: str, path: str, body: object = None, *, accept: str = "application/json") -> str:
        """The answer to one call, as it came."""
        if not self.base.startswith(("http://", "https://")):
            raise AdminError(f"cannot reach {self.base!r}: a URL begins with http://, such as http://127.0.0.1:9000")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": accept}
        try:
            request = Request(self.url + path, data, headers, method=method)  # noqa: S310 - the user's own URL
            with _opener.open(request, timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except HTTPError as error:
            raise AdminError(_sentence(error), error.code) from None
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            advice = "are the simulators running there? `paydrome simulators` starts them"
            raise AdminError(f"cannot reach {self.base}: {reason}; {advice}") from None

    def journal(self, **criteria: object) -> list[dict[str, Any]]:
        """The entries that match; see `GET /journal` in docs/providers.md for the criteria. One that is `None` may be anything."""
        asked = {name: value for name, value in criteria.items() if value is not None}
        lines = self.text("GET", "/journal" + (f"?{urlencode(asked)}" if asked else ""))
        try:
            return [json.loads(line) for line in lines.splitlines()]
        except ValueError:
            raise AdminError(f"{self.url}/journal is no journal; is it another service?") from None

    def explain(self, reference: str) -> str:
        """What became of a reference and why, in words."""
        return self.text("GET", f"/admin/explain/{quote(reference, safe='')}", accept="text/plain")


def _sentence(error: HTTPError) -> str:
    body = error.read(65_536).decode(errors="replace")
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.url} answered {error.code} {error.reason} and not as simulators do; is it another service?"
