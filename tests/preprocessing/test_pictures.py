import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from checkpoints.errors import UserError
from preprocessing.pictures import fit, read_picture


@pytest.fixture
def scene():
    """Half red, a quarter green: shows orientation and channel order."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (200, 20, 20)
    image[:20, 30:] = (20, 200, 20)
    return image


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_formats(scene, kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(encoded(scene, kind))
    assert np.abs(read_picture(path).astype(int) - scene).mean() < 4


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(scene, kind, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_picture(encoded(scene, kind, exif=exif))
    assert np.abs(image.astype(int) - np.rot90(scene, turn)).mean() < 4


def test_transparent_pixels_are_white(scene):
    layered = np.dstack([scene, np.full((40, 60), 255, np.uint8)])
    layered[30:, :, 3] = 0
    image = read_picture(encoded(layered))
    assert (image[30:] == 255).all()
    assert (image[:30] == scene[:30]).all()


def test_grey_sixteen_bit_palette_and_cmyk(scene):
    grey = scene[:, :, 0]
    assert (read_picture(encoded(grey)) == grey[:, :, None]).all()
    assert np.abs(read_picture(encoded(grey.astype(np.uint16) * 257)).astype(int) - grey[:, :, None]).max() <= 1
    assert np.abs(read_picture(encoded(Image.fromarray(scene).convert("P"))).astype(int) - scene).mean() < 30
    assert np.abs(read_picture(encoded(Image.fromarray(scene).convert("CMYK"), "JPEG")).astype(int) - scene).mean() < 8


def png_claiming(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [60000, 10000])
def test_a_picture_bomb_is_not_unpacked(side):
    with pytest.raises(UserError, match="pixels"):
        read_picture(png_claiming(side, side))


@pytest.mark.parametrize("cut", [0, 10, 300])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_pictures_are_refused(scene, kind, cut):
    data = encoded(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8), kind)
    with pytest.raises(UserError, match="cannot be read"):
        read_picture(data[:cut])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_picture(tmp_path / "none.jpg")


def test_fit(scene):
    fitted = fit(scene, 30)
    assert fitted.shape == (30, 30, 3)
    assert (fitted[0] == fitted[4]).all()  # the padding repeats the edge
    assert (fit(scene[:, :40], 40) == scene[:, :40]).all()
    assert fit(scene, 224).shape == (224, 224, 3)


def test_what_is_no_picture_is_always_said_in_the_same_words():
    said = set()
    for _ in range(2):
        with pytest.raises(UserError) as error:
            read_picture(b"no picture at all")
        said.add(str(error.value))
    assert len(said) == 1 and "0x" not in said.pop()


def test_whatever_a_decoder_raises_is_a_picture_that_cannot_be_read(monkeypatch):
    def broken(_source, **options):
        raise TypeError("'IFDRational' object is no number")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(UserError, match="cannot be read as a picture: 'IFDRational'"):
        read_picture(b"II*")
