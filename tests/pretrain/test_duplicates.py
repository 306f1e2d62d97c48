import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.faces import FacesStore
from pretrain.duplicates import MOST, duplicates_across, duplicates_of, perceptual_hash, store_hashes
from tests.pretrain.corpus import make_store, picture


def bits(a, b):
    return (a ^ b).bit_count()


def scene(seed, size=96):
    """A grey picture with the spectrum of natural ones: amplitudes fall with the frequency."""
    rng = np.random.default_rng(seed)
    distance = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 1 / size
    waves = np.fft.irfft2((rng.normal(size=distance.shape) + 1j * rng.normal(size=distance.shape)) / distance**1.5)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(128 + 40 * waves / waves.std(), 0, 255).astype(np.uint8)).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def changed(jpeg, *, size=None, quality=60, grey=False, gain=1.0):
    image = Image.open(io.BytesIO(jpeg))
    image = image.convert("L") if grey else image
    image = image.point(lambda value: value * gain)
    image = image.resize((size, size)) if size else image
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def test_the_same_picture_in_another_form_has_nearly_the_same_hash():
    for seed in range(20):
        jpeg = scene(seed)
        for how in ({"size": 48}, {"quality": 40}, {"grey": True}, {"gain": 0.8}):
            other = changed(jpeg, **how)
            assert bits(perceptual_hash(jpeg), perceptual_hash(other)) <= MOST


def test_other_pictures_have_other_hashes():
    hashes = [perceptual_hash(scene(seed)) for seed in range(60)]
    distances = [bits(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(distances) > 2 * MOST and 28 < np.mean(distances) < 36
    assert perceptual_hash(b"no picture") == perceptual_hash(b"") == 0


hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8)
flips = st.lists(st.integers(0, 63), max_size=5)


@given(hashes, st.lists(st.tuples(st.integers(0, 7), flips), min_size=1, max_size=8))
def test_banded_search_finds_what_comparing_all_pairs_finds(earlier, made):
    later = []
    for which, positions in made:
        value = earlier[which % len(earlier)]
        for position in positions:
            value ^= 1 << position
        later.append(value)
    expected = [value != 0 and any(known and bits(known, value) <= MOST for known in earlier) for value in later]
    found = duplicates_of(np.array(earlier, np.uint64), np.array(later, np.uint64))
    assert found.tolist() == expected


def test_the_first_store_keeps_the_picture():
    a, b, c = (
        np.array(part, np.uint64) for part in ([1, 1 << 40], [1 << 40, 0xFFFF0000], [0xFFFF0001, 1 << 63 | 0xFF])
    )
    assert [part.tolist() for part in duplicates_across([a, b, c])] == [[False, False], [True, False], [True, False]]


def test_hashes_are_kept_in_the_store(tmp_path):
    store = FacesStore(make_store(tmp_path / "faces", [0, None, 2]))
    found = store_hashes(store)
    assert found[1] == 0 and found[0] == perceptual_hash(picture(0))
    (kept,) = store.copy_folder.glob("phash-*.npy")
    np.save(kept, found[::-1])
    assert store_hashes(store).tolist() == found[::-1].tolist()
