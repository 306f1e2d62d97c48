"""Models on the Hugging Face Hub: encoders, and bundles of heads with their encoders."""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from checkpoints.artifact import read_json
from checkpoints.encoder import KIND as ENCODER
from checkpoints.encoder import encoder_directory, load_encoder
from checkpoints.errors import UserError
from wildaffect.inference.bundle import write_bundle
from wildaffect.inference.models import BUNDLE, check_bundle

FILES = ("*.json", "*.safetensors", "*.onnx", "*.md")
"""What is uploaded and downloaded. None of it is ever run."""
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the HTTP library raises; which one that is depends on the version of huggingface_hub."""


def fetch(name: Path | str, revision: str | None = None) -> Path:
    """The folder of that name, or the model of that name on the Hub, which is downloaded once.

    Args:
        name: A folder, or `OWNER/NAME` on the Hub.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: There is neither, or the Hub cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    _check_name(str(name), f"{name} is not a folder")
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(FILES)))
    except (OSError, HTTP_ERROR) as error:
        raise UserError(f"{name} is not a folder, and cannot be downloaded: {_reason(error)}") from None


def push_to_hub(model: Path | str, name: str, *, private: bool = False) -> str:
    """Upload an encoder, heads or a bundle, with the card. Log in first with `hf auth login`, or set HF_TOKEN.

    Args:
        model: An encoder directory (timm loads it from the Hub too), a bundle, or a run of stage 3 or a head directory,
            which is uploaded as a bundle with its encoders.
        name: `OWNER/NAME` on the Hub; made if it does not exist.
        private: Make it private.

    Returns:
        The address of the commit.

    Raises:
        UserError: The model is damaged, or the Hub refuses it or cannot be reached.
    """
    _check_name(name, f"{name} cannot be a name on the Hub")
    directory = encoder_directory(model)
    header = directory / "config.json"
    content = read_json(header) if header.is_file() else {}
    if (directory / BUNDLE).is_file():
        check_bundle(directory)
    elif isinstance(content, dict) and content.get("kind") == ENCODER:
        load_encoder(directory)
    else:
        with tempfile.TemporaryDirectory(prefix="wildaffect-") as folder:
            write_bundle([model], Path(folder) / "bundle")
            return push_to_hub(Path(folder) / "bundle", name, private=private)
    api = HfApi(library_name="wildaffect")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=directory, allow_patterns=list(FILES))
    except (OSError, HTTP_ERROR) as error:
        raise UserError(f"{model} cannot be uploaded as {name}: {_reason(error)}") from None
    return str(done.commit_url)


def _check_name(name: str, problem: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"{problem}, and no OWNER/NAME on the Hub: check the spelling") from None


def _reason(error: Exception) -> str:
    """The first line of an error of the Hub's."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
