"""Write the table of formats in docs/exports.md from a benchmark's results, or with --check say whether it is current.

python docs/make_exports.py
python docs/make_exports.py --check      exit code 1, naming the file, when it is not
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrain.exports.formats import FORMATS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "exports.md"
RESULTS = ROOT / "benchmarks" / "results" / "exports.json"
BEGIN, END = "<!-- begin: written by docs/make_exports.py -->\n", "<!-- end -->\n"

_HEADS = ("format", "file", "for", "MB", "same top label", "scores differ by at most", "time a picture", "same bytes twice")
_WORDS = """
Measured on {pictures} test pictures of clip art that the model had not learnt from, with the default network. Time: as a
multiple of LiteRT in float32, from pixels to scores, one thread, in turns, on a busy machine ({cpu}, {cores} cores); `zip`
is `retrain` itself. A SavedModel that is given files in place of pixels decodes and scales them with TensorFlow: it then
has the model's label on {agreement} of them, and scores differ by at most {difference}.
"""


def table(facts: dict[str, Any]) -> str:
    """Return the table, and what is to be known of it."""
    results = facts["results"]
    lines = [_HEADS, ["---"] * 3 + ["---:"] * 4 + ["---"]]
    for name, one in FORMATS.items():
        row = results["formats"][name]
        differs = row["differs_when_exported_twice"]
        lines.append(
            (
                f"`{name}`",
                f"`{one.file}`" if "." in one.file else f"`{one.file}/`",
                one.about,
                f"{row['mb']:.1f}",
                _percent(row["agreement"]),
                row["largest_difference"],
                f"{row['times_litert']:.2f}",
                "yes" if not differs else f"all but {', '.join(f'`{file}`' for file in differs)}",
            )
        )
    text = "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
    from_files, machine = results["formats"]["savedmodel"]["from_files"], facts["machine"]
    return text + _WORDS.format(
        pictures=results["pictures"],
        cpu=machine["cpu"],
        cores=machine["cores"],
        agreement=_percent(from_files["agreement"]),
        difference=from_files["largest_difference"],
    )


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def written(text: str) -> str:
    """Return a page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(json.loads(RESULTS.read_text())) + END + after


def main(arguments: Sequence[str], file: Path = PAGE) -> int:
    """Write the page, or check it; returns the exit code."""
    text = file.read_text()
    if "--check" not in arguments:
        file.write_text(written(text))
        return 0
    if written(text) == text:
        return 0
    print(f"{file} is out of date; run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
