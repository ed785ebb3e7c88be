"""A small object store on this machine that speaks the part of S3's protocol that stores need, counts
requests, and fails on demand."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


class Objects:
    """What the server holds: bytes and time of change by name. `requests` counts by kind."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, float]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: Counter[str] = Counter()
        self.lose_answers = 0  # so many conditional puts succeed, but the client never hears of it
        self.refuse = 0  # so many requests are answered with 503
        self.deny = False  # every write is answered with 403
        self.forbidden: set[tuple[str, str]] = (
            set()
        )  # (kind of request, end of the name) that are answered with 403
        self.before: Callable[[str, str], object] = lambda kind, name: (
            None
        )  # called with every request before it is looked at
        self.page = 1000  # names in an answer to a listing, as S3 gives
        self.closed: set[str] = set()  # names that are answered with 403 when they are read
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = (
        1 << 16
    )  # an answer in one piece: in two, the second waits for the client to acknowledge the first
    objects: Objects

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _parse(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).lstrip("/").partition("/")[2], parse_qs(
            parts.query, keep_blank_values=True
        )

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _count(self, kind: str) -> bool:
        """False when this request is to fail, and has been answered."""
        o, name = self.objects, self._parse()[0]
        o.before(kind, name)
        with o.lock:
            o.requests[kind] += 1
            refused = o.refuse > 0
            o.refuse -= refused
        if refused:
            self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        elif (o.deny and self.command in ("PUT", "POST", "DELETE")) or any(
            kind == k and name.endswith(end) for k, end in o.forbidden
        ):
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return False
        return not refused

    def _describe(self, data: bytes, changed: float) -> dict[str, str]:
        return {"ETag": f'"{md5(data).hexdigest()}"', "Last_Modified": formatdate(changed, usegmt=True)}

    def do_HEAD(self) -> None:
        if self._count("HEAD"):
            name, _ = self._parse()
            found = self.objects.held.get(name)
            if found is None or name in self.objects.closed:
                return self._answer(403 if found else 404)
            self.send_response(200)
            for key, value in {"Content-Length": str(len(found[0])), **self._describe(*found)}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
        return None

    def do_GET(self) -> None:
        name, query = self._parse()
        if not self._count("LIST" if "list-type" in query else "GET"):
            return None
        if "list-type" in query:
            after = query.get("continuation-token", query.get("start-after", [""]))[0]
            return self._answer(
                200, self._listing(query.get("prefix", [""])[0], query.get("delimiter", [""])[0], after)
            )
        found = self.objects.held.get(name)
        if found is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if name in self.objects.closed:
            return self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        data, about = found[0], self._describe(*found)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                return self._answer(416)
            part = data[int(first) : int(last) + 1]
            return self._answer(
                206, part, Content_Range=f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}", **about
            )
        return self._answer(200, data, **about)

    def _listing(self, prefix: str, delimiter: str, after: str) -> bytes:
        """A page of names after a name: a folder is one entry, and the mark of the next page is the last
        entry of this."""
        entries: dict[str, str] = {}
        for name in sorted(self.objects.held):
            if (
                name <= after
                or not name.startswith(prefix)
                or (delimiter and after.endswith(delimiter) and name.startswith(after))
            ):
                continue
            if len(entries) > self.objects.page:
                break
            inside, slash, _ = name[len(prefix) :].partition(delimiter or "\0")
            if slash:
                folder = prefix + inside + slash
                entries[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                continue
            data, changed = self.objects.held[name]
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(changed))
            about = f"<LastModified>{when}</LastModified><Size>{len(data)}</Size>"
            entries[name] = f"<Contents><Key>{escape(name)}</Key>{about}</Contents>"
        shown = list(entries)[: self.objects.page]
        more = (
            f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>"
            if len(entries) > len(shown)
            else ""
        )
        body = (
            "".join(entries[name] for name in shown)
            + f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}"
        )
        return f"<ListBucketResult>{body}</ListBucketResult>".encode()

    def do_PUT(self) -> None:
        name, query = self._parse()
        data, o = self._body(), self.objects
        if not self._count("PUT"):
            return None
        if "partNumber" in query:
            o.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = data
            return self._answer(200, ETag=f'"{md5(data).hexdigest()}"')
        if source := self.headers.get("x-amz-copy-source"):
            data = o.held[unquote(source).lstrip("/").partition("/")[2]][0]
            o.held[name] = (data, time.time())
            return self._answer(
                200,
                b"<CopyObjectResult><ETag>x</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>",
            )
        with o.lock:
            if self.headers.get("If-None-Match") == "*":
                if name in o.held:
                    return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                if o.lose_answers:
                    o.lose_answers -= 1
                    o.held[name] = (data, time.time())
                    self.close_connection = True
                    self.connection.close()
                    return None
            o.held[name] = (data, time.time())
        return self._answer(200, ETag=f'"{md5(data).hexdigest()}"')

    def do_POST(self) -> None:
        name, query = self._parse()
        body, o = self._body(), self.objects
        if not self._count("POST"):
            return None
        if "delete" in query:
            names = [e.text or "" for e in ElementTree.fromstring(body).iter() if e.tag.endswith("Key")]
            for gone in names:
                o.held.pop(gone, None)
            deleted = "".join(f"<Deleted><Key>{escape(n)}</Key></Deleted>" for n in names)
            return self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        if "uploads" in query:
            upload = str(len(o.uploads))
            o.uploads[upload] = {}
            return self._answer(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode(),
            )
        parts = o.uploads.pop(query["uploadId"][0])
        o.held[name] = (b"".join(parts[n] for n in sorted(parts)), time.time())
        return self._answer(
            200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
        )

    def do_DELETE(self) -> None:
        if self._count("DELETE"):
            self.objects.held.pop(self._parse()[0], None)
            self._answer(204)


@contextmanager
def serving() -> Iterator[tuple[Objects, dict[str, str]]]:
    """The objects, and the environment in which `s3://bucket/...` is this server."""
    objects = Objects()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": objects}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield (
            objects,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
