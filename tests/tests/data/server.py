"""An HTTP/1.1 server for tests: says what it got, and fails on demand. Standard library only.

GET /...                     200, JSON: pod, method, path, headers, body length
    /status/503              that status
    /sleep/250               answers after so many milliseconds
    /reset                   closes the connection without a response
    /fail-first/2?key=a      the first two requests with that key get a 503, later ones 200
    /flaky                   503 when the file /tmp/fail exists, else 200
"""
import collections
import http.server
import json
import os
import socket
import sys
import threading
import time

SEEN = collections.Counter()
LOCK = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one write, as from any server worth its name: what has begun cannot be tried again elsewhere.
    wbufsize = 65536

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if "chunked" not in (
            self.headers.get("Transfer-Encoding") or "") else self.chunked()
        kind, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        status = 200
        if kind == "status":
            status = int(rest)
        elif kind == "sleep":
            time.sleep(int(rest) / 1000)
        elif kind == "reset":
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        elif kind == "fail-first":
            with LOCK:
                SEEN[self.path] += 1
                status = 503 if SEEN[self.path] <= int(rest) else 200
        elif kind == "flaky" and os.path.exists("/tmp/fail"):
            status = 503
        text = json.dumps({"pod": os.environ.get("POD_NAME", "?"), "version": os.environ.get("VERSION", ""),
                           "method": self.command, "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()},
                           "body": len(body)}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Pod", os.environ.get("POD_NAME", "?"))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def chunked(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        return body

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = answer

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128


Server(("::", int(sys.argv[1])), Handler).serve_forever()
