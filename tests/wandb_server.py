"""A W&B server on 127.0.0.1 for tests: keeps what clients send, answers as far as a run, a sync and a workspace need.

It knows GraphQL operations by name, the file stream of a run's history and summary, uploads of files, and views. It can
be told to refuse or to fall silent.
"""

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "0123456789abcdef" * 2 + "loopback"
"""An API key of the form that clients accept."""


@dataclass
class Run:
    """What the server was told of one run."""

    upserts: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)  # file of the stream → its lines, by offset
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    def given(self, key: str) -> Any:
        """The value of `key` in the last upsert that had one."""
        return next((v[key] for v in reversed(self.upserts) if v.get(key) is not None), None)

    @property
    def config(self) -> dict[str, Any]:
        """Without W&B's own entries."""
        found = json.loads(self.given("config") or "{}")
        return {key: entry["value"] for key, entry in found.items() if not key.startswith("_")}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, without W&B's own columns."""
        found = map(json.loads, self.lines.get("wandb-history.jsonl", []))
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in found]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines.get("wandb-summary.json", [])
        return json.loads(lines[-1]) if lines else {}


@dataclass
class Server:
    """Told by tests, read by tests.

    Attributes:
        status: answer everything with this HTTP status instead.
        coming: HTTP statuses of the next requests; 200 is an answer.
        silent: take connections and do not answer, as long as this is set.
    """

    url: str = ""
    status: int = 200
    coming: Iterator[int] = field(default_factory=lambda: iter(()))
    silent: bool = False
    runs: dict[str, Run] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    requests: list[str] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL operation; None for one the server does not know."""
        me = {"id": "VXNlcjox", "username": "me", "entity": "me", "email": "", "flags": "{}", "admin": False}
        fixed: dict[str, Any] = {
            "Viewer": {"viewer": {**me, "teams": {"edges": []}}},
            "GetDefaultEntity": {"viewer": me},
            "ServerInfo": {"serverInfo": _features()},
            "ServerInfoQuery": {"serverInfo": _features()},
            "ServerFeaturesQuery": {"serverInfo": _features()},
            "ProjectInternalId": {"project": {"id": "UHJv", "internalId": "UHJvOjE="}},
            "ArtifactType": {"project": {"artifact": None}},
            "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": None}},
        }
        if operation in fixed:
            return fixed[operation]
        own = getattr(self, f"_{operation}", None)
        return own(given) if own else None

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"]
        new = name not in self.runs
        self.runs.setdefault(name, Run()).upserts.append(given)
        bucket = {**self._bucket(name), "project": {"id": "UHJv", "name": given.get("project") or "lifelong",
                                                   "entity": {"name": given.get("entity") or "me"}}}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        bucket = self._bucket(given["name"]) if given["name"] in self.runs else None
        return {"model": {"id": "m", "name": given["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket}}

    _RunStatus = _RunResumeStatus

    def _bucket(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        history = run.lines.get("wandb-history.jsonl", [])
        return {
            "id": f"UnVu{name}", "name": name, "displayName": run.given("displayName") or name, "description": None,
            "config": run.given("config") or "{}", "summaryMetrics": json.dumps(run.summary), "sweepName": None,
            "historyLineCount": len(history), "historyTail": json.dumps(history[-1:]), "logLineCount": 0,
            "eventsLineCount": 0, "eventsTail": "[]", "tags": run.given("tags") or [], "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def _Run(self, given: dict[str, Any]) -> dict[str, Any]:
        bucket = {**self._bucket(given["name"]), "projectId": "1", "state": "finished", "historyKeys": None}
        return {"project": {"run": bucket}}

    def _RunHistoryKeys(self, given: dict[str, Any]) -> dict[str, Any]:
        lines = self.runs[given["name"]].lines.get("wandb-history.jsonl", [])
        keys = {"lastStep": json.loads(lines[-1])["_step"]} if lines else None
        return {"project": {"run": {"historyKeys": keys}}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": f, "uploadUrl": f"{self.url}/put/{given['run']}/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(given)
        known = {"id": "QXJ0", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": known}}

    def _UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        new = given.get("id") not in {view["id"] for view in self.views.values()}
        name = given["name"] if given["name"] not in self.views or not new else f"{given['name']}-{len(self.views)}"
        self.views[name] = {**given, "id": given.get("id") or f"Vmlldzo{len(self.views)}", "name": name}
        return {"upsertView": {"view": {"id": self.views[name]["id"], "name": name}, "inserted": new}}

    def _View(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [view for name, view in self.views.items() if name == given["viewName"]]
        nodes = [{"node": {key: view[key] for key in ("id", "displayName", "spec")}} for view in found]
        return {"project": {"allViews": {"edges": nodes}}}

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """One request of a run's file stream: lines from an offset on, at the end the exit code."""
        kept = self.runs.setdefault(run, Run())
        for name, part in (sent.get("files") or {}).items():
            lines = kept.lines.setdefault(name, [])
            lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if sent.get("exitcode") is not None:
            kept.exit_codes.append(sent["exitcode"])


def _features() -> dict[str, Any]:
    version = {"max_cli_version": "9.0.0", "min_cli_version": "0.5.0"}
    return {"features": [], "cliVersionInfo": version, "latestLocalVersionInfo": None,
            "exposesExplicitArtifactSequenceId": False}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def _handle(self) -> None:
        told: Server = self.server.told
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        told.requests.append(f"{self.command} {self.path}")
        while told.silent and not told.stopping.is_set():
            time.sleep(0.02)
        if told.stopping.is_set():
            self.close_connection = True
            return
        status = next(told.coming, told.status)
        answer = self._answer(told, body) if status == 200 else {"error": "refused"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = _handle

    def _answer(self, told: Server, body: bytes) -> Any:
        if self.path == "/graphql":
            sent = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])
            operation = sent.get("operationName") or (found.group(1) if found else "")
            told.requests[-1] = operation
            data = told.answer(operation, sent.get("variables") or {})
            return {"data": {}, "errors": [{"message": f"unknown {operation}"}]} if data is None else {"data": data}
        if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            told.stream(unquote(stream.group(1)), json.loads(body))
            return {"exitcode": None, "limits": {}}
        if put := re.fullmatch(r"/put/([^/]+)/(.*)", self.path):
            told.runs.setdefault(unquote(put.group(1)), Run()).files[unquote(put.group(2))] = body
        return {}


@contextmanager
def wandb_server() -> Iterator[Server]:
    """A server on a free port."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that has gone away is no news
    told = Server(url=f"http://127.0.0.1:{http.server_port}")
    http.told = told  # type: ignore[attr-defined]
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield told
    finally:
        told.stopping.set()
        http.shutdown()
        http.server_close()
