# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the Hugging Face Hub on this machine, for caches that the real huggingface_hub lays out.

It serves one repository over HTTP, as far as snapshot_download asks: the revision, the list of files, and the files.
"""
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".bin", ".gguf")  # what the Hub keeps in LFS, where a file is called by its SHA-256


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def etag(name, data):
    return sha256(data) if name.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def handler(files):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, body, **headers):
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            if "/resolve/" in path:
                name = path.split("/resolve/")[1].split("/", 1)[1]
                if name not in files:
                    return self.send_error(404)
                tag = etag(name, files[name])
                return self.answer(files[name], ETag=f'"{tag}"', X_Linked_ETag=f'"{tag}"', X_Repo_Commit=COMMIT, X_Linked_Size=str(len(files[name])))
            if "/tree/" in path:
                tree = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
                         **({"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if name.endswith(LARGE) else {})}
                        for name, data in sorted(files.items())]
                return self.answer(json.dumps(tree).encode(), Content_Type="application/json")
            info = {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self.answer(json.dumps(info).encode(), Content_Type="application/json")

        do_HEAD = do_GET

    return Handler


@contextlib.contextmanager
def serving(files):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
patterns = sys.argv[1].split(",") if sys.argv[1] else None
print(snapshot_download("org/name", allow_patterns=patterns, **({"local_dir": sys.argv[2]} if len(sys.argv) > 2 else {})))
"""

# What the client does after a download over Xet, by its own function: the tests' server has no Xet.
SHARE = """
import sys
from pathlib import Path
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store
cache, size_least = Path(sys.argv[1]), int(sys.argv[2])
for blob in (cache / "models--org--name/blobs").iterdir():
    if blob.stat().st_size >= size_least and not blob.is_symlink():
        xet = __import__("hashlib").blake2s(blob.read_bytes()).hexdigest()
        assert publish_blob_to_shared_store(blob_path=str(blob), xet_hash=xet, cache_dir=cache, expected_size=blob.stat().st_size)
"""


def run(script, *args, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run([sys.executable, "-c", script, *map(str, args)], env={**clean, **env}, check=True, text=True,
                          capture_output=True).stdout.strip()


def download(files, cache, only=(), local_dir=None, **env):
    """Makes `cache` (or local_dir) as snapshot_download does of the files that match `only`; returns the snapshot's folder."""
    with serving(files) as endpoint:
        return run(DOWNLOAD, ",".join(only), *([local_dir] if local_dir else []), HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(cache),
                   HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1", **env)


def share(cache, least=1000):
    """Moves large blobs to the cache's store of shared blobs."""
    run(SHARE, cache, least)
