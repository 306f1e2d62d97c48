"""Talking videos, stores of their frames, and speech models small enough for tests."""

from pathlib import Path

import numpy as np
import torch
import transformers

from preprocessing.video import read_times
from preprocessing.write_faces import finish_store, write_shard
from tests.finetune.corpus import picture
from tests.preprocessing.movies import clicks_at, write_talkie

LATE = 5


def talkies(folder: Path) -> Path:
    """`steady`, `uneven` (two people are seen in it), `late` (sound from 0.61 s to 1.6 s) and `silent`, 2 s each."""
    folder.mkdir()
    steady = list(range(0, 2000, 40))
    uneven = [0, 30, 90, *range(150, 1000, 85), 1000, 1120, *range(1300, 2000, 33)]
    wave = clicks_at([0.52, 1.48], 44_100, 2.0)
    write_talkie(folder / "steady.mp4", steady, [wave], codec="aac")
    write_talkie(folder / "uneven.mkv", uneven, [clicks_at([0.235, 1.12, 1.72], 8000, 2.0)], rate=8000)
    write_talkie(folder / "late.mkv", steady, [clicks_at([0.35], 48_000, 0.99)], rate=48_000, first_s=0.61)
    write_talkie(folder / "silent.mp4", steady, [])
    return folder


def store_of(videos: Path, path: Path, *, clock: bool = True) -> Path:
    """A faces store of every frame of the videos; `uneven` has a second person from its fifth frame on."""
    for file in sorted(videos.iterdir()):
        times = read_times(file)
        for subject, first in (("", 1), ("2", LATE)) if file.stem == "uneven" else (("", 1),):
            id = f"{file.stem}_{subject}".rstrip("_")
            shown = {n: {"frame": n, "image": picture(n % 4, n)} for n in range(1, len(times) + 1)}
            rows = [{"video": file.stem, "subject": subject} | shown[n] for n in shown]
            rows = [row | {"time_s": times[row["frame"] - 1] if clock else None} for row in rows[first - 1 :]]
            write_shard(path, id, rows)
    finish_store(path, made_by="test", config={}, image_size=40, problems=[], synthetic=True)
    return path


def speech_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random wav2vec 2.0 or HuBERT (16 dimensions, a token every 20 ms) or Whisper encoder (8, chunks of 2 s)."""
    torch.manual_seed(seed)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 16}
    waves = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 8}
    if kind == "whisper":
        layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        ffn = {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "d_model": 8, "num_mel_bins": 8, "vocab_size": 60}
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        config = transformers.WhisperConfig(**layers, **ffn, **tokens, max_source_positions=100, max_target_positions=8)
        model, prepare = transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(8, chunk_length=2)
    else:
        names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}
        config = getattr(transformers, f"{names[kind]}Config")(**small, **waves)
        model, prepare = getattr(transformers, f"{names[kind]}Model")(config), transformers.Wav2Vec2FeatureExtractor()
    model.save_pretrained(folder)
    prepare.save_pretrained(folder)
    return folder


def loudest(features: np.ndarray, valid: np.ndarray, time_s: np.ndarray, near: float) -> float:
    """Time of the loudest row within 0.3 s of a time, in seconds."""
    rows = np.flatnonzero(valid & (np.abs(time_s - near) < 0.3))
    return float(time_s[rows[features[rows].astype(float).mean(axis=1).argmax()]])
