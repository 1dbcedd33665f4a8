"""A registry on loopback that has one empty image under every name, for an engine to pull."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _image(text: str) -> tuple[dict[str, bytes], bytes]:
    """Blobs and manifest of an image with one file, which holds the text."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("text")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    layer = gzip.compress(archive.getvalue())
    layers = {"type": "layers", "diff_ids": [_digest(archive.getvalue())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layers}).encode()
    kinds = {"container.image.v1+json": config, "image.rootfs.diff.tar.gzip": layer}
    described, described_layer = (
        {"mediaType": f"application/vnd.docker.{kind}", "size": len(blob), "digest": _digest(blob)}
        for kind, blob in kinds.items()
    )
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [described_layer]}
    return {_digest(blob): blob for blob in kinds.values()}, json.dumps(manifest).encode()


@contextmanager
def small_registry(text: str, port: int = 0) -> Iterator[tuple[str, str]]:
    """Where it answers (host and port), and the digest of its image. Ends with the block."""
    blobs, manifest = _image(text)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[1]
            found = manifest if "/manifests/" in self.path else blobs.get(name, b"{}")
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST if found is manifest else "application/octet-stream")
            self.send_header("Content-Length", str(len(found)))
            self.send_header("Docker-Content-Digest", _digest(found))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(found)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", _digest(manifest)
        finally:
            server.shutdown()
            thread.join()
