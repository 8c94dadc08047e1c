"""The notebook of the documentation is complete as it is stored, and runs again to the same end.

After a change to it, run it with nbclient and `record_timing=False`, set its `language_info` to `{"name": "python"}` and
write it back: then it holds nothing of the machine that it ran on.
"""

import copy
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "whole_job.ipynb"
MAX_BYTES, MAX_LINES = 400_000, 19
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TOLERANCE = 0.02
# These only define and prepare.
SILENT = {"root", "copy", "sheet", "bars", "show", "spoil", "tidy"}


@pytest.fixture
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(cell: Any) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def differences(one: Any, other: Any) -> list[str]:
    """Return the names of the cells that gave other words, other numbers or another count of pictures."""
    return [
        left.id
        for left, right in zip(code(one), code(other), strict=True)
        if pictures(left) != pictures(right) or not same(words(left), words(right))
    ]


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, numbers within the tolerance."""
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    close = all(math.isclose(float(left), float(right), rel_tol=0, abs_tol=TOLERANCE) for left, right in pairs)
    return close and NUMBER.split(one) == NUMBER.split(other)


def faults(notebook: Any) -> set[str]:
    """Say what must not be in a notebook that is stored."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    texts = json.dumps([{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs])
    cells = code(notebook)
    found = {
        "a cell failed": any(output.output_type == "error" for output in outputs),
        "a warning": any(output.get("name") == "stderr" for output in outputs),
        "a path of some machine": re.search(r"/(?:tmp|home|root|var|usr|Users)\b|[A-Z]:\\\\|site-packages", texts),
        "a time of execution": any(cell.metadata for cell in notebook.cells),
        "facts about a machine": notebook.metadata
        != {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells run out of order": [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)),
        "outputs are missing": {cell.id for cell in cells if not cell.outputs} != SILENT,
        "a picture without words": any("image/png" in output.get("data", {}) and not about(output) for output in outputs),
        "a long cell": any(len(cell.source.splitlines()) > MAX_LINES for cell in cells),
    }
    return {name for name, there in found.items() if there}


def about(output: Any) -> str:
    return str(output.get("metadata", {}).get("image/png", {}).get("alt", ""))


# --- as it is stored


def test_the_stored_notebook_is_valid_small_and_clean(stored: Any) -> None:
    nbformat.validate(stored)
    assert faults(stored) == set()
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert sum(pictures(cell) for cell in code(stored)) >= 6


def test_its_links_lead_to_pages(stored: Any) -> None:
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) >= 3
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


def test_what_must_not_be_in_it_would_be_found(stored: Any) -> None:
    sample, trained = (next(cell for cell in code(stored) if cell.id == name) for name in ("sample", "trained"))
    clean = copy.deepcopy(stored)
    trained.outputs[0].text = "model: /home/me/model\n"
    trained.outputs.append(nbformat.v4.new_output("stream", name="stderr", text="oh\n"))
    trained.outputs.append(nbformat.v4.new_output("error", ename="KeyError", evalue="x", traceback=[]))
    trained.metadata["execution"] = {"iopub.execute_input": "today"}
    trained.source += "\n" * MAX_LINES + "1"
    sample.outputs[-1].metadata.clear()
    stored.metadata.language_info["version"] = "3.13.1"
    code(stored)[0].execution_count = None
    code(stored)[-1].outputs = [nbformat.v4.new_output("stream", text="deleted\n")]
    assert len(faults(stored)) == 9
    assert differences(clean, stored) == ["trained", "tidy"]


@pytest.mark.parametrize("other", ["28 of 32, 0.84", "27 of 32, 0.87", "27 from 32, 0.84", "27 of 32", "27 of 32, 0.84!"])
def test_another_text_or_number_would_be_found(other: str) -> None:
    assert same("27 of 32, 0.84", "27 of 32, 0.85")
    assert not same("27 of 32, 0.84", other)


# --- run again


def kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a kernel that is this very interpreter, with all that it writes below a folder, and return its name."""
    line = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "share" / "kernels" / "this-one" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": line, "display_name": "This one", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "share"))
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the outputs stored are those of a computer without a GPU
    return spec.parent.name


def changes() -> dict[Path, int]:
    """When each file that a run could touch in the clone was last changed."""
    return {path: path.stat().st_mtime_ns for name in ("test_data", "tf_files") for path in (ROOT / name).rglob("*")}


@pytest.mark.weights
def test_it_runs_again_and_says_the_same(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    again = copy.deepcopy(stored)
    for cell in code(again):
        cell.outputs, cell.execution_count = [], None
    before = changes()
    where = {"metadata": {"path": str(ROOT / "docs")}}
    name = kernel(tmp_path, monkeypatch)
    NotebookClient(again, kernel_name=name, timeout=180, resources=where, record_timing=False).execute()
    assert differences(stored, again) == []
    assert changes() == before
