#!/usr/bin/env python3
"""A reference collector: the far side of `url = "https://..."`, as docs/collector.md describes it.

It keeps what it takes below a folder, which is then a lake: `forebay verify FOLDER`. Python alone, nothing to install:

    python3 collector.py /srv/lake --port 8443 --token-file token --cert cert.pem --key key.pem

Without --cert it speaks plain HTTP, which is for this machine alone.
"""
import argparse
import base64
import hashlib
import hmac
import os
import re
import ssl
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Names that a gateway makes. None begins with a dot, so none leads out of the folder.
KEY = re.compile(r"(?:[A-Za-z0-9_=-][A-Za-z0-9._=-]*/)*[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
MAX_BYTES = 1 << 30


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds of silence

    def do_PUT(self):
        length = self.headers.get("content-length", "")
        if not self.allowed() or not (path := self.path_of_key()):
            return
        if not length.isdigit():
            return self.answer(411)
        if int(length) > MAX_BYTES:
            return self.answer(413)
        if os.path.exists(path) and self.headers.get("if-none-match") == "*":
            return self.answer(412)
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as part:
            left = int(length)
            while left and (chunk := self.rfile.read(min(left, 1 << 16))):
                digest.update(chunk)
                part.write(chunk)
                left -= len(chunk)
            if left:  # cut off: nothing of it is kept
                self.close_connection = True
                return
            if (promised := self.headers.get("repr-digest")) and promised.strip() != repr_digest(digest):
                return self.answer(400, "the bytes do not have the digest that came with them\n")
            part.flush()
            os.fsync(part.fileno())
            try:
                os.link(part.name, path)  # complete under its name, or not there; never replaced
            except FileExistsError:
                return self.answer(412)
        self.sync(folder)
        self.answer(201, digest=digest)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if not self.allowed() or not (path := self.path_of_key()):
            return
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest = hashlib.file_digest(file, "sha256")
                self.send_response(200)
                self.send_header("repr-digest", repr_digest(digest))
                self.send_header("content-length", str(size))
                self.end_headers()
                if self.command == "GET":
                    file.seek(0)
                    while chunk := file.read(1 << 16):
                        self.wfile.write(chunk)
        except OSError:
            self.answer(404)

    def allowed(self):
        given = self.headers.get("authorization", "")
        if self.server.token is None or hmac.compare_digest(given.encode(), b"Bearer " + self.server.token):
            return True
        self.answer(401, "the token is missing or wrong\n")
        return False

    def path_of_key(self):
        key = self.path.lstrip("/")
        if KEY.fullmatch(key):
            return os.path.join(self.server.folder, key)
        # What is no name of ours is not there; to put it is refused.
        self.answer(400 if self.command == "PUT" else 404)
        return None

    def sync(self, folder):
        while len(folder) >= len(self.server.folder):
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            folder = os.path.dirname(folder)

    def answer(self, status, text="", digest=None):
        if status >= 400 and self.command == "PUT":
            self.close_connection = True  # the body was not read
        self.send_response(status)
        if digest:
            self.send_header("repr-digest", repr_digest(digest))
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def repr_digest(digest):
    return f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--token-file")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    args = parser.parse_args()
    server = ThreadingHTTPServer((args.host, args.port), Collector)
    server.daemon_threads = True
    server.folder = os.path.abspath(args.folder)
    server.token = open(args.token_file, "rb").read().strip() if args.token_file else None
    os.makedirs(server.folder, exist_ok=True)
    scheme = "http"
    if args.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    print(f"listening on {scheme}://{args.host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
