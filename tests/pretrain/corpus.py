"""Small faces stores of random blots."""

import io

import numpy as np
from PIL import Image

from preprocessing.write_faces import finish_store, write_shard


def picture(seed, size=40):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def make_store(path, seeds, *, videos=10, size=40, shards=1):
    """A store with one picture per seed (None: no face), in videos of a given length."""
    rows = [
        {
            "video": f"v{n // videos}",
            "subject": "",
            "frame": n % videos + 1,
            "time_s": n / 30,
            "image": None if seed is None else picture(seed, size),
        }
        for n, seed in enumerate(seeds)
    ]
    per_shard = -(-len(rows) // shards // videos) * videos
    for number in range(shards):
        write_shard(path, f"s{number}", rows[number * per_shard : (number + 1) * per_shard])
    finish_store(path, made_by="test", config={}, image_size=size, problems=[], synthetic=True)
    return path
