"""Findings about class folders: how many pictures they have, and what they are called."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from retrain.checks.findings import Finding
from retrain.classify.names import as_file_name

_TINY = 20  # pictures: with fewer, a test part of a fifth has less than four
_UNEQUAL = 10  # times as many in the largest class as in the smallest
_THIN = 0.2  # of the share that a source has in the other classes
_LEAST_OF_A_SOURCE = 5


def sizes(counts: Mapping[str, int]) -> list[Finding]:
    """Return findings about empty, tiny and very unequal classes. `counts`: label -> pictures that can be used."""
    found = [
        Finding("empty-class", f"'{label}' has no usable picture", labels=(label,)) for label, n in counts.items() if not n
    ]
    tiny = [(n, label) for label, n in counts.items() if 0 < n < _TINY]
    found += [
        Finding(
            "tiny-class",
            f"'{label}' has {n} picture{'s' if n > 1 else ''}, {_TINY} are a beginning",
            labels=(label,),
            score=1 - n / _TINY,
        )
        for n, label in sorted(tiny)
    ]
    filled = {label: n for label, n in counts.items() if n}
    if filled and max(filled.values()) > _UNEQUAL * min(filled.values()):
        small, large = (choose(filled, key=lambda label: (filled[label], label)) for choose in (min, max))
        ratio = filled[large] / filled[small]
        found.append(
            Finding(
                "unequal-classes",
                f"'{large}' has {filled[large]} pictures, {ratio:.0f} times as many as '{small}' ({filled[small]});"
                " --class-weight balanced counts them alike",
                labels=(large, small),
                score=1 - 1 / ratio,
            )
        )
    return found


def names(labels: Sequence[str]) -> list[Finding]:
    """Return findings about class names that other systems, Unicode forms or file names cannot tell apart."""
    ways = (
        ("by upper and lower case only", str.casefold),
        ("by their Unicode form only", lambda label: unicodedata.normalize("NFKC", label)),
        ("by spaces and the like at their ends only", lambda label: " ".join(label.split())),
        ("in nothing that is safe in a file name", as_file_name),
    )
    found, told = [], set()
    for how, key in ways:
        alike: dict[str, list[str]] = defaultdict(list)
        for label in labels:
            alike[key(label)].append(label)
        for group in alike.values():
            if len(group) > 1 and tuple(group) not in told:
                told.add(tuple(group))
                shown = ", ".join(f"'{label}'" for label in group)
                found.append(Finding("colliding-names", f"{shown} differ {how}", labels=tuple(group)))
    return found


def sources(labels: Sequence[str], sources_of: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[Finding]]:
    """Return the pictures of each class in each source, and findings about classes that have next to none of one.

    `labels`, `sources_of`: of each picture, the latter empty for one of no source.
    """
    table: dict[str, dict[str, int]] = {}
    of_class = Counter(labels)
    for source in sorted(set(sources_of) - {""}):
        counts = Counter(label for label, its in zip(labels, sources_of, strict=True) if its == source)
        table[source] = {label: counts[label] for label in of_class}
    found = []
    for source, row in table.items():
        share = sum(row.values()) / len(labels)
        for label, n in row.items():
            expected = share * of_class[label]
            if expected >= _LEAST_OF_A_SOURCE and n < _THIN * expected:
                found.append(
                    Finding(
                        "thin-source", f"'{label}' has {n} of '{source}', of all pictures {100 * share:.0f} % are of it",
                        labels=(label,), score=1 - n / expected,
                    )
                )  # fmt: skip
    return table, found
