"""Hidden states of a speech model of Hugging Face `transformers` as features (extra `speech`)."""

import hashlib
import json
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from checkpoints.errors import UserError, first_words
from checkpoints.network import BUILD_FAULTS
from features.sound import LOGMEL, Ear, LogMel, Tokens
from preprocessing.sound import RATE

HUB = "hf:"
PREPARATION = "preprocessor_config.json"
"""File that says how sound is prepared for a model."""
CHUNK_S = 30
"""Seconds that a model hears at once, unless it names another number."""
MARGIN = 15
"""A chunk overlaps the one before and the one after by this part of its length twice: the tokens in the margins are
taken from the other one, unless there is none."""
UNUSED = "masked_spec_embed"
"""Weights that only training uses; files may lack them."""
NO_MATTER = ("_name_or_path", "architectures", "dtype", "processor_class", "torch_dtype", "transformers_version")
"""Keys of a model's files that do not change its hidden states."""


class SpeechModel(Ear):
    """The last hidden states of a wav2vec 2.0, HuBERT, WavLM or Whisper encoder; see :class:`features.sound.Ear`.

    Args:
        place: The folder of the model (`config.json`, `model.safetensors`, `preprocessor_config.json`), or its name on
            the Hub.
        device: Where it goes.

    Raises:
        UserError: `transformers` is not installed, there is no such model, or it is of another kind.
    """

    def __init__(self, place: str, device: torch.device | str = "cpu") -> None:
        try:
            # Optional, and a second to load: `predict` has this module, but rarely a speech model.
            transformers = import_module("transformers")
        except ImportError:
            raise UserError("speech models need transformers: pip install 'wildaffect[speech]'") from None
        self.place = place if Path(place).is_dir() else f"{HUB}{place.removeprefix(HUB)}"
        name = place.removeprefix(HUB)
        try:
            settings, _ = transformers.PretrainedConfig.get_config_dict(name)
            hearing, _ = transformers.FeatureExtractionMixin.get_feature_extractor_dict(name)
            self._prepare = transformers.AutoFeatureExtractor.from_pretrained(name)
            transformers.utils.logging.disable_progress_bar()
            model, found = transformers.AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True)
            if missing := [key for key in found["missing_keys"] if not key.endswith(UNUSED)]:
                raise ValueError(f"it lacks {missing[0]}")
        except (OSError, SafetensorError, *BUILD_FAULTS) as error:
            raise UserError(
                f"--audio {name}: no speech model can be loaded from there ({first_words(error)}): give {LOGMEL}, a "
                "folder with config.json, model.safetensors and preprocessor_config.json, or a name on the Hugging "
                "Face Hub"
            ) from None
        config = model.config
        self._whisper = config.model_type == "whisper"
        if not (self._whisper or hasattr(config, "conv_stride")) or self._prepare.sampling_rate != RATE:
            raise UserError(
                f"--audio {name} is a {config.model_type} model: give one of wav2vec 2.0, HuBERT, WavLM or Whisper "
                f"that takes {RATE:,} samples per second"
            )
        self._model = (model.get_encoder() if self._whisper else model).float().to(device).eval()
        self.dim = config.hidden_size
        self._stride, self._field = 2 * self._prepare.hop_length if self._whisper else prod(config.conv_stride), 1
        if self._whisper:
            self._field = self._stride
        else:
            for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
                self._field = (self._field - 1) * stride + kernel
        self.period_s = self._stride / RATE
        self._chunk = (self._prepare.chunk_length if self._whisper else CHUNK_S) * RATE
        self._margin = self._chunk // MARGIN // self._stride * self._stride
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            if key.endswith(UNUSED):
                continue
            digest.update(key.encode() + tensor.cpu().numpy().tobytes())
        self.fingerprint = digest.hexdigest()
        self.config: dict[str, Any] = {"sound": "model", "architecture": config.model_type, "rate": RATE}
        self.config |= {"chunk": self._chunk, "margin": self._margin}
        for part, content in (("network", settings), ("preparation", hearing)):
            self.config[part] = {key: value for key, value in content.items() if key not in NO_MATTER}

    @property
    def feature_id(self) -> str:
        """A hash of weights and settings."""
        content = json.dumps([self.fingerprint, self.config], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def stretch(self, start: float, blocks: Iterator[np.ndarray]) -> Iterator[Tokens]:
        """See :class:`features.sound.Ear`."""
        held, first = np.zeros(0, np.float32), 0  # `first`: the sample of the stretch in held[0]
        for block in chain(blocks, [None]):
            held = held if block is None else np.concatenate([held, block])
            while len(held) >= self._chunk or (block is None and len(held)):
                samples = held[: self._chunk]
                centres = np.arange(self._count(len(samples))) * self._stride + self._field / 2
                last = block is None and len(held) < self._chunk
                kept = (centres >= (self._margin if first else 0)) & (last | (centres < self._chunk - self._margin))
                if kept.any():
                    yield start + (first + centres[kept]) / RATE, self._hidden(samples, len(centres))[kept]
                step = len(held) if last else self._chunk - 2 * self._margin
                held, first = held[step:], first + step

    def _count(self, samples: int) -> int:
        """Number of tokens of some samples, at least 1."""
        return max(1, -(-samples // self._stride) if self._whisper else (samples - self._field) // self._stride + 1)

    @torch.inference_mode()
    def _hidden(self, samples: np.ndarray, count: int) -> np.ndarray:
        """Hidden states `[count, D]` of samples `[N]`."""
        samples = np.pad(samples, (0, max(0, self._field - len(samples))))
        given = self._prepare(samples, sampling_rate=RATE, return_tensors="pt")
        values = given["input_features" if self._whisper else "input_values"]
        states = self._model(values.to(self._model.device)).last_hidden_state[0]
        if not self._whisper and len(states) != count:
            raise UserError(
                f"--audio {self.place} makes {len(states)} tokens where {count} were expected: its convolutions are "
                "not those of wav2vec 2.0, HuBERT or WavLM"
            )
        return states[:count].float().cpu().numpy()


def load_ear(audio: str, device: torch.device | str = "cpu") -> Ear:
    """Log-mel spectra, or a speech model by its folder or name.

    Raises:
        UserError: There is no such model, see :class:`SpeechModel`.
    """
    return LogMel() if audio.lower() == LOGMEL else SpeechModel(audio, device)
