"""ONNX graphs of encoders and heads: exported, compared with PyTorch, and run by onnxruntime in their place."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError
from wildaffect.inference.models import Models

try:
    import onnxruntime
except ImportError:  # an optional package: `open_session` says how to install it
    onnxruntime = None

FILE = "model.onnx"
TOLERANCE = 1e-3
"""Largest accepted difference from PyTorch, relative to the largest output (at least 1)."""


class OnnxEncoder(nn.Module):
    """An exported encoder that stands in for :class:`checkpoints.network.Encoder`."""

    def __init__(self, directory: Path, encoder: Any) -> None:
        super().__init__()
        self.session = open_session(directory)
        self.config, self.provenance = encoder.config, encoder.provenance
        self.fingerprint, self.dim = encoder.fingerprint, encoder.dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images `[B, 3, H, W]` to features `[B, dim]`."""
        return torch.from_numpy(self.session.run(None, {"images": images.cpu().numpy()})[0])


class OnnxNetwork(nn.Module):
    """An exported head that stands in for :class:`temporal.network.HeadNetwork`."""

    mean: torch.Tensor

    def __init__(self, directory: Path, network: Any) -> None:
        super().__init__()
        self.session = open_session(directory)
        self.architecture, self.dims = network.architecture, network.dims
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, features: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of a batch of windows, as `HeadNetwork.forward` does."""
        named = {"features": features.float(), "valid": valid, "inside": inside}
        return torch.from_numpy(self.session.run(None, {name: item.numpy() for name, item in named.items()})[0])


class Exported(nn.Module):
    """A head as it is exported, with a second output that says which frames have a face.

    It uses all inputs, because an input that a network does not use would lose its dynamic size in the graph.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, features: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs `[B, T, out_dim]` and `[B, T]` bool."""
        return self.network(features, valid, inside), valid.any(dim=-1) & inside


def open_session(directory: Path) -> Any:
    """Open the graph in a directory with onnxruntime.

    Raises:
        UserError: onnxruntime or the graph is missing.
    """
    if onnxruntime is None:
        raise UserError("ONNX graphs need onnxruntime: pip install 'wildaffect[export]'")
    if not (directory / FILE).exists():
        raise UserError(f"{directory} has no {FILE}: make the bundle with `wildaffect export --onnx`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(directory / FILE, options, providers=["CPUExecutionProvider"])


def use_onnx(models: Models) -> None:
    """Run a bundle's encoders and heads with onnxruntime from now on.

    Raises:
        UserError: The heads are not in a bundle with ONNX graphs.
    """
    for name, embedder in models.embedders.items():
        embedder.encoder = OnnxEncoder(models.places[name], embedder.encoder)  # type: ignore[assignment]
    for directory, head in zip(models.directories, models.heads, strict=True):
        head.network = OnnxNetwork(directory, head.network)  # type: ignore[assignment]


def export_bundle(models: Models) -> dict[str, float]:
    """Write the graphs of a bundle beside its weights.

    Returns:
        Name of each graph -> its largest difference from PyTorch.

    Raises:
        UserError: A graph disagrees with PyTorch, a network cannot be exported, or the exporter is not installed.
    """
    torch.manual_seed(0)
    differences = {}
    for name, embedder in models.embedders.items():
        size = embedder.encoder.config.image_size
        samples = [(torch.randint(256, (batch, 3, size, size), dtype=torch.uint8),) for batch in (2, 1, 5)]
        shapes = {"images": {0: torch.export.Dim("batch")}}
        place = models.places[name]
        differences[f"encoder {place.name}"] = _export(embedder.encoder, place, samples, shapes)
    for directory, head in zip(models.directories, models.heads, strict=True):
        if head.architecture.fusion == "attention":
            raise UserError(
                f"{directory.name} cannot be exported to ONNX: it joins its views by attention over 1,024 scalars per "
                "frame (nguyen2024), and a graph would compute all frames at once, which takes too much memory. "
                "nguyen2024-concat can be exported"
            )
        dims = sum(head.network.dims)
        fixed = head.architecture.readout == "last"
        samples_: list[tuple[torch.Tensor, ...]] = []
        for batch, time in ((2, max(2, head.architecture.window)), (1, 7), (3, 33)):  # graphs take two frames or more
            length = head.architecture.window if fixed else time
            inside = torch.ones(batch, length, dtype=torch.bool)
            inside[-1, length // 2 :] = fixed
            valid = torch.rand(batch, length, len(head.network.dims)) > 0.2
            samples_.append((torch.randn(batch, length, dims), valid, inside))
        axes = {0: torch.export.Dim("batch")} | ({} if fixed else {1: torch.export.Dim("frames", min=2)})
        shapes = dict.fromkeys(("features", "valid", "inside"), axes)
        differences[f"head {directory.name}"] = _export(Exported(head.network), directory, samples_, shapes)
    return differences


def _export(
    module: nn.Module, directory: Path, samples: Sequence[tuple[torch.Tensor, ...]], shapes: dict[str, Any]
) -> float:
    """Write one graph and return its largest difference from the module on the samples."""
    module = module.eval().float()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel cannot be exported
    try:
        with _quiet(), atomic_file(directory / FILE) as temporary:
            program = torch.onnx.export(
                module, samples[0], dynamic_shapes=shapes, input_names=list(shapes), dynamo=True, verbose=False
            )
            assert program is not None
            program.save(temporary)
    except ImportError as error:
        raise UserError(f"export needs onnx and onnxscript ({error}): pip install 'wildaffect[export]'") from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    session = open_session(directory)
    worst = 0.0
    for sample in samples:
        with torch.inference_mode():
            expected = module(*sample)
        expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
        given = session.run(None, {name: item.numpy() for name, item in zip(shapes, sample, strict=True)})[0]
        real = sample[-1].numpy() if len(sample) > 1 else np.ones(len(expected), bool)  # outputs of padding may differ
        difference = np.abs(given - expected)[real].max(initial=0.0)
        worst = max(worst, float(difference) / max(1.0, float(np.abs(expected).max())))
    if not worst < TOLERANCE:
        raise UserError(f"{directory / FILE} differs from PyTorch by {worst:.1e}: this network cannot be exported")
    return worst


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
