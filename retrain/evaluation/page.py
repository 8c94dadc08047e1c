"""The page of an evaluation: how good the model is, what it confuses, whether its scores mean what they say."""

from retrain.evaluation import mistakes, rests
from retrain.evaluation.evaluated import Evaluated, Unknown
from retrain.evaluation.figures import Figures, OfClass
from retrain.evaluation.metrics import Accuracy, wilson_interval
from retrain.head import History
from retrain.progress import SILENT, Progress
from retrain.report import plots
from retrain.report.cards import relative
from retrain.report.html import Markup, bar_cell, count, folded, join, name, page, percent, short, table, tag
from retrain.report.matrix import MAX_CLASSES, chosen, matrix, row_id
from retrain.report.plots import Line, Spot
from retrain.report.sections import Section, about, contents
from retrain.report.sorting import SCRIPT, number, sortable
from retrain.report.style import FIGURES

MAX_ROWS = 200  # of a table
MAX_SKIPPED = 20
MAX_STEPS = 200  # of a training curve: more than there are pixels for
_FOLDED_STEPS = 20
_FOOTER = "Written by retrain evaluate. The page is a single file with small copies of the pictures in it; it loads nothing."


def render(found: Evaluated, progress: Progress = SILENT) -> str:
    """Return the page: the same for the same input. A picture that cannot be read is shown as such.

    Paths of mistakes are as they can be opened, or relative to the data folder.
    """
    parts = (
        ("The model", _of_model(found)),
        ("Scores", _of_scores(found)),
        ("Mistakes", _of_mistakes(found, progress)),
        ("Reasons", [rests.section(found)] if found.maps.rests else []),
    )
    body = join(section.html for _, sections in parts for section in sections)
    title = f"Evaluation of {found.model}"
    return page(title, _header(found), contents(parts), body, _FOOTER, looks=FIGURES, script=SCRIPT)


def _header(found: Evaluated) -> Markup:
    of, unknown = found.figures, found.unknown
    low, high = of.accuracy.interval
    tiles = [
        ("accuracy", percent(of.accuracy.value), f"95 % interval {_interval((low, high))}"),
        ("pictures", f"{of.accuracy.count:,}", f"{of.accuracy.count - of.accuracy.correct:,} labelled wrongly"),
        ("macro F1", f"{of.macro_f1:.3f}", count(sum(row.support > 0 for row in of.classes), "class", "classes")),
        ("log loss", f"{of.log_loss:.3f}", "0 is best"),
        ("calibration error", percent(of.calibration_error), "0 is best"),
    ]
    if unknown and unknown.known:
        tiles.append(("called unknown", percent(unknown.refused / unknown.known), f"{unknown.refused:,} pictures"))
    shown = (
        tag("div", tag("dt", tag("b", what), " ", tag("span", small)), tag("dd", value)) for what, value, small in tiles
    )
    title = tag("h1", "Evaluation of ", name(str(found.model)))
    flags = rests.flags(found.maps.flagged, link=True)
    return join((title, tag("p", found.when, class_="soft"), tag("dl", *shown, class_="tiles"), flags))


def _of_model(found: Evaluated) -> list[Section]:
    sections = [_how(found), _classes(found)]
    if found.figures.by_source:
        sections.append(_sources(found.figures.by_source))
    if found.figures.top_k:
        sections.append(_top_k(found.figures))
    if found.curve and found.curve.steps:
        sections.append(_training(found.curve))
    return sections


def _of_mistakes(found: Evaluated, progress: Progress) -> list[Section]:
    sections = [mistakes.pairs(found)] if found.figures.pairs else []
    sections.append(_confusion(found))
    return [*sections, mistakes.pictures(found, progress)] if found.mistakes else sections


def _of_scores(found: Evaluated) -> list[Section]:
    sections = [_calibration(found)] if found.figures.bins else []
    return [*sections, _unknown(found.unknown)] if found.unknown else sections


def _how(found: Evaluated) -> Section:
    facts = {
        "model": name(str(found.model)),
        "pictures": name(str(found.data)),
        "judged on": found.judged_on,
        "backbone": found.backbone,
        "temperature": f"{found.temperature:.3g}",
    }
    parts = [
        tag("dl", *(part for what, fact in facts.items() for part in (tag("dt", what), tag("dd", fact))), class_="facts")
    ]
    parts += [tag("p", sentence) for sentence in found.split]
    if found.skipped:
        rows = (
            tag(
                "li", name(short(relative(found.data, one.path))), f": {one.reason}", f", {one.detail}" if one.detail else ""
            )
            for one in found.skipped[:MAX_SKIPPED]
        )
        listed = tag("ul", *rows, class_="plain"), mistakes.rest(len(found.skipped) - MAX_SKIPPED, "pictures")
        parts.append(folded(f"{count(len(found.skipped), 'picture')} skipped", *listed))
    return Section("how", "How it was measured", join(parts))


def _classes(found: Evaluated) -> Section:
    of = found.figures
    worst = sorted(of.classes, key=lambda row: (row.f1 is None, row.f1 or 0.0))[:MAX_ROWS]
    rows = set(chosen(of.confusion.tolist()))
    links = {row.label: row_id(at) for at, row in enumerate(of.classes) if at in rows}
    text = (
        "Recall: the share of the pictures of a class that got its label. Precision: the share of the pictures with a label "
        "that are of its class. F1 is high only where both are; the classes with the lowest come first."
    )
    if any(row.precision is None or row.recall is None for row in worst):
        text += " A dash: there is no such picture."
    head = ("class", "recall", "precision", "F1", "pictures", "so labelled")
    made = sortable("Figures of each class", head, (_class(row, links.get(row.label)) for row in worst), wide=True)
    more = mistakes.rest(len(of.classes) - len(worst), "classes")
    return Section("classes", "Classes", join((about(text), made, more)), len(of.classes))


def _class(row: OfClass, link: str | None) -> list[object]:
    """A row of the table; the name leads to what the class was taken for."""
    return [
        tag("a", name(row.label), href=f"#{link}") if link else name(row.label),
        _share(row.recall), _share(row.precision), number("–" if row.f1 is None else f"{row.f1:.3f}", row.f1),
        number(f"{row.support:,}", row.support), number(f"{row.predicted:,}", row.predicted),
    ]  # fmt: skip


def _share(share: float | None) -> Markup:
    return number("–", None) if share is None else bar_cell(percent(share), share, share)


def _sources(by_source: dict[str, Accuracy]) -> Section:
    worst = sorted(by_source.items(), key=lambda one: (one[1].value, one[0]))[:MAX_ROWS]
    cells = [
        (name(source), _share(right.value), number(_interval(right.interval), right.interval[0]),
         number(f"{right.count:,}", right.count))
        for source, right in worst
    ]  # fmt: skip
    text = "The share of the pictures of a source that got the right label; the lowest comes first."
    made = sortable("Accuracy by source", ("source", "accuracy", "95 % interval", "pictures"), cells, wide=True)
    more = mistakes.rest(len(by_source) - len(worst), "sources")
    return Section("sources", "Sources", join((about(text), made, more)), len(by_source))


def _interval(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.1f} to {percent(ends[1])}"


def _top_k(of: Figures) -> Section:
    ranks = ((1, of.accuracy.value), *of.top_k)
    cells = [("the highest" if k == 1 else f"the {k} highest", bar_cell(percent(share), share)) for k, share in ranks]
    text = "The share of pictures whose label is among the highest scores."
    made = table("Accuracy by number of labels", ("the label is among", "share"), cells, kind="narrow")
    return Section("top", "Among the highest scores", join((about(text), made)))


def _confusion(found: Evaluated) -> Section:
    of, places = found.figures, {row.label: at for at, row in enumerate(found.figures.classes)}
    links = {(places[label], places[said]): link for (label, said), link in mistakes.pair_ids(found).items()}
    text = (
        "A row is a class, a column what its pictures were taken for. The stronger the colour of a "
        "cell, the larger its share of the row; what is right is blue, what is wrong orange."
    )
    if len(of.classes) > MAX_CLASSES:
        text += (
            f" Of {len(of.classes):,} classes, the {MAX_CLASSES} with the most mistakes, made or suffered; the rest is in "
            f"{mistakes.RECORD}."
        )
    made = matrix("Pictures by class and label", [row.label for row in of.classes], of.confusion.tolist(), links)
    return Section("matrix", "Confusion matrix", join((about(text), made)))


def _calibration(found: Evaluated) -> Section:
    of = found.figures
    text = (
        "Of all pictures with a score near 80 %, eight in ten should be right: the points should lie on the dotted line. "
        f"The calibration error, how far off they are on average over pictures, is {percent(of.calibration_error)} "
        "after calibration"
    )
    if of.uncalibrated_error is not None:
        text += f", and {percent(of.uncalibrated_error)} before"
    text += (
        ". Below the line the model is too sure. Lines up and down are 95 % intervals; columns at the bottom count pictures."
    )
    spots = [_spot(row.low, row.high, row.count, row.score, row.correct) for row in of.bins]
    head = ("score", "mean score", "share right", "95 % interval", "pictures")
    cells = [
        (f"{100 * one.first:.0f} to {100 * one.last:.0f} %", percent(one.score), percent(one.share),
         _interval((one.low, one.high)), f"{one.pictures:,}")
        for one in spots
    ]  # fmt: skip
    figures = folded("The figures", table("Share that is right by score", head, cells, wide=True))
    return Section("calibration", "Do scores mean what they say?", join((about(text), plots.reliability(spots), figures)))


def _spot(low: float, high: float, pictures: int, score: float, correct: float) -> Spot:
    return Spot(low, high, pictures, score, correct, *wilson_interval(round(correct * pictures), pictures))


def _unknown(of: Unknown) -> Section:
    text = (
        f"Pictures that are unlike all that the model learnt from can be called unknown. At most {percent(of.rate)} of the "
        "pictures of known classes should be so by mistake. "
    )
    text += f"{of.refused:,} of {of.known:,} were, {of.refused_wrong:,} of which would have got a wrong label."
    rows = [("known classes", of.known, of.refused), ("other classes", of.foreign, of.found)]
    if of.foreign:
        text += f" Of {count(of.foreign, 'picture')} of classes that the model does not have, {of.found:,} were noticed."
    cells = [
        (what, f"{pictures:,}", f"{called:,}", bar_cell(percent(called / pictures), called / pictures))
        for what, pictures, called in rows
        if pictures
    ]
    made = table(
        "Pictures that were called unknown", ("pictures of", "pictures", "called unknown", "share"), cells, kind="narrow"
    )
    return Section("unknown", "What the model does not know", join((about(text), made)))


def _training(of: History) -> Section:
    steps, drawn = _thinned(of, MAX_STEPS)
    loss, error = drawn[:2], drawn[2:]
    text = (
        "Loss (mean cross-entropy, in nats) and the share labelled wrongly, while the head was trained. Where only the "
        "dashed line rises, the model learns by heart."
    )
    charts = tag(
        "div",
        tag("div", tag("h3", "Loss"), plots.lines("Loss", "loss", steps, loss)),
        tag("div", tag("h3", "Error rate"), plots.lines("Error rate", "labelled wrongly", steps, error, as_shares=True)),
        class_="plots",
    )
    steps, drawn = _thinned(of, _FOLDED_STEPS)
    head = ("step", "loss, learnt from", "loss, held out", "error, learnt from", "error, held out")
    cells = [
        (f"{step:,}", f"{learnt:.3f}", f"{held_out:.3f}", percent(wrong), percent(held_out_wrong))
        for step, learnt, held_out, wrong, held_out_wrong in zip(steps, *(line.values for line in drawn), strict=True)
    ]
    figures = folded("The figures", table("Loss and error rate by training step", head, cells, wide=True))
    return Section("training", "Training", join((about(text), plots.legend(loss), charts, figures)))


def _thinned(of: History, most: int) -> tuple[list[int], list[Line]]:
    """Return so many steps at most, evenly spread, the last among them, with their losses and then their error rates."""
    last = len(of.steps) - 1
    rows = sorted({round(last * at / (most - 1)) for at in range(most)})
    names = ("pictures that were learnt from", f"others ({of.held_out_are})") * 2
    of_lines = (of.learnt_loss, of.held_out_loss, of.learnt_error, of.held_out_error)
    lines = [Line(title, [values[row] for row in rows]) for title, values in zip(names, of_lines, strict=True)]
    return [of.steps[row] for row in rows], lines
