import numpy as np

from wildaffect.inference.scratch import ROWS, parts, scratch_array, side_by_side


def test_a_scratch_array_is_zeros_in_a_file_without_a_name(tmp_path):
    array = scratch_array(1000, 64, tmp_path)
    assert isinstance(array, np.memmap) and array.shape == (1000, 64) and not array.any()
    assert list(tmp_path.iterdir()) == []
    array[17] = 3
    assert array.sum() == 3 * 64


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path):
    assert scratch_array(2, 3, tmp_path / "missing").shape == (2, 3)


def test_arrays_side_by_side_equal_their_concatenation():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2 * ROWS + 5, width)).astype(np.float16) for width in (3, 2)]
    assert np.array_equal(side_by_side(arrays), np.concatenate(arrays, axis=1))
    assert side_by_side(arrays[:1]) is arrays[0]


def test_parts_cover_every_row_once():
    for rows in (0, 1, ROWS, ROWS + 1, 3 * ROWS):
        assert [i for part in parts(rows) for i in range(rows)[part]] == list(range(rows))
