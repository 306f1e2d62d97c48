"""The notebook is kept with its results, and its cells run."""

import ast
import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.commands import ROOT

PATH = ROOT / "docs" / "notebooks" / "clip_to_curves.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_it_is_kept_executed_small_and_without_paths_of_a_machine(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and all(output.output_type == "execute_result" for output in outputs)
    assert PATH.stat().st_size < 200_000
    assert not any(place in json.dumps(outputs) for place in ("/root", "/home", "/tmp"))


def test_its_cells_run_and_its_own_head_is_better_than_chance(notebook):
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    scores = ast.literal_eval(notebook.cells[-1].outputs[0].data["text/plain"])["expr"]
    assert scores["score"] > scores["chance"]
