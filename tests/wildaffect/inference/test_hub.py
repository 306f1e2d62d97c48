"""Models go to the Hub and come back: a stand-in on this machine that speaks as much of its language as is needed."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import ModelCard

from checkpoints.errors import UserError
from wildaffect.inference.hub import fetch, push_to_hub
from wildaffect.inference.predictor import Predictor

COMMIT = "0" * 39 + "1"


class StandIn(BaseHTTPRequestHandler):
    """Keeps files in memory, by model and path."""

    files: dict[str, dict[str, bytes]]

    def log_message(self, *_args):
        pass

    def answer(self, content, status=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            self.files.setdefault(name, {})
            self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        else:
            name = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    self.files[name][part["value"]["path"]] = base64.b64decode(part["value"]["content"])
            self.answer(
                {
                    "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": True,
                }
            )

    def do_GET(self):
        path = self.path.split("?")[0]
        name, kind, rest = path.removeprefix("/api/models").strip("/"), "info", ""
        for mark in ("/resolve/", "/tree/", "/revision/"):
            if mark in name:
                (name, rest), kind = name.split(mark, 1), mark.strip("/")
        if name not in self.files:
            self.answer({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "none such"})
            return
        files = self.files[name]
        if kind == "resolve":
            file = files.get(rest.split("/", 1)[1])
            if file is None:
                self.answer({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                tag = hashlib.sha1(file).hexdigest()
                self.answer(file, headers={"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        elif kind == "tree":
            self.answer(
                [
                    {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for p, c in files.items()
                ]
            )
        else:
            self.answer({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files], "tags": []})

    do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for


@pytest.fixture
def hub():
    """Address of the stand-in, and its files."""
    handler = type("Handler", (StandIn,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.files
    server.shutdown()
    server.server_close()


SCRIPT = """
import sys
import timm, torch
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from wildaffect import Predictor, push_to_hub

encoder, head, *_ = sys.argv[1:]
assert "commit" in push_to_hub(encoder, "me/encoder")
push_to_hub(head, "me/head", private=True)
predictor = Predictor.from_pretrained("me/head", device="cpu")
assert predictor.models.sources[0]["name"] == "va"
assert predictor.models.fingerprint == Predictor.from_pretrained("me/head").models.fingerprint
model = timm.create_model("hf-hub:me/encoder", pretrained=True).eval()
ours, pictures = load_encoder(encoder), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
assert torch.allclose(model(ours.normalise(pictures)), ours(pictures), atol=1e-5)
try:
    Predictor.from_pretrained("me/nothing")
except UserError as error:
    print(error)
"""


def test_an_encoder_and_a_head_come_back_from_the_hub(hub, encoder, heads, tmp_path):
    address, files = hub
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_stand_in"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(encoder[0]), str(heads[0])],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "me/nothing is not a folder, and cannot be downloaded: " in done.stdout and done.stdout.count("\n") <= 4
    assert {"config.json", "model.safetensors"} <= files["me/encoder"].keys()
    assert {"README.md", "bundle.json", "heads/va/config.json", "encoders/0/model.safetensors"} <= files[
        "me/head"
    ].keys()
    card = ModelCard(files["me/head"]["README.md"].decode())
    assert card.data.library_name == "wildaffect" and card.data.license == "other"
    card = ModelCard(files["me/head"]["encoders/0/README.md"].decode())
    assert card.data.library_name == "timm" and "valence-arousal" in card.data.tags


def test_a_folder_needs_no_hub(heads):
    assert Predictor.from_pretrained(heads[0], device="cpu").models.sources[0]["name"] == "va"
    assert fetch(str(heads[0])) == heads[0]


@pytest.mark.parametrize("name", ["a/b/c", "no such folder", "./missing"])
def test_what_is_no_name_is_said_to_be_none(name, heads):
    with pytest.raises(UserError, match="no OWNER/NAME on the Hub"):
        fetch(name)
    with pytest.raises(UserError, match="no OWNER/NAME on the Hub"):
        push_to_hub(heads[0], name)


def test_a_hub_that_cannot_be_reached(encoder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    with pytest.raises(UserError, match=r"cannot be uploaded as me/encoder: .*refused"):
        push_to_hub(encoder[0], "me/encoder")
