"""The stages of a training run that come before what is special to each, in their order."""

from collections.abc import Sequence

from retrain.dataset import Split, read
from retrain.errors import UsageError
from retrain.pipeline.examples import Examples, usable
from retrain.pipeline.features import Extractor, open_extractor
from retrain.pipeline.groups import choose_groups
from retrain.pipeline.judged import Judged, divide_examples, fit_and_judge
from retrain.pipeline.look import extract_all, look
from retrain.pipeline.record import Record
from retrain.pipeline.search import Search
from retrain.pipeline.seen import Seen
from retrain.pipeline.tuned import FineTuner, check_parts
from retrain.pipeline.wanted import Wanted
from retrain.progress import Progress
from retrain.runner import Run
from retrain.storage import own_folder
from retrain.summaries import Summaries


class Line:
    """From pictures to a head on the backbones as they are. `record`: what is noted on the way."""

    extractors: Sequence[Extractor]
    seen: Sequence[Seen]
    examples: Examples
    parts: Split

    def __init__(self, wanted: Wanted, run: Run, progress: Progress) -> None:
        """Raises UsageError for a backbone that is not known."""
        self._wanted, self._run, self._progress = wanted, run, progress
        self.layout, self.target = wanted.layout, wanted.target
        self.record = Record(
            wanted.layout, wanted.names(), wanted.split, wanted.head, wanted.crop_borders, wanted.as_settings()
        )

    def prepare(self, to_save: bool = True) -> None:
        """List the pictures, open the backbones, compute features, split, and compute views."""
        wanted, record, layout, progress = self._wanted, self.record, self.layout, self._progress
        split = wanted.split
        with record.stage("listing"):
            listing = read(layout, split.groups, split.validation_dir, split.test_dir, split.test_source)
            record.listed = True
            own_folder(layout.reports)
            if to_save:
                own_folder(self.target, "" if wanted.model is None else "move it away or choose another --model")
        with record.stage("backbone"):
            self.extractors = [
                open_extractor(one, wanted.size, wanted.weights, wanted.crop_borders, progress) for one in wanted.backbones
            ]
            record.chosen([(one.backbone, one.weights, one.network.engine) for one in self.extractors])
            wanted.check(self.extractors)
        with record.stage("bottlenecks"):
            found = extract_all(listing, self.extractors, layout, self._run, progress)
            examples = usable(listing, found[0], record, progress, found[1:])
        with record.stage("split"):
            examples, parts = choose_groups(listing, examples, split, wanted.head, self.target, record, progress)
            self.parts = divide_examples(examples, parts, self.target, record, progress)
            self.examples = examples
            # Now, and not after the head was trained.
            if wanted.tuning.fine_tune:
                check_parts(self.parts)
            if wanted.search and self.parts.folds:
                raise UsageError("--search needs a validation and a test part, not folds; add pictures, or drop --search")
        with record.stage("views"):
            self.seen = look(
                listing, found, self.extractors, examples, self.parts, wanted.augment, wanted.tta, layout, self._run, record,
                progress, timed_too=bool(wanted.search) or wanted.tuning.fine_tune,
            )  # fmt: skip

    def frozen(self) -> Judged:
        """Learn with the backbones as they are."""
        judged = fit_and_judge(self.examples, self.parts, self._wanted.head, self.record, self._progress, self.seen)
        history = judged.fitted.history
        written = Summaries(self._wanted.summaries_folder, "head")
        for step, figures in history.figures() if history else ():
            written.add(step, figures)
        return judged

    def searcher(self, default: Judged) -> Search:
        """Return what looks for a better model."""
        return Search(
            self.extractors[0], self.seen[0], self.examples, self.parts, default, self._wanted.for_tuning, self.layout,
            self._run, self.record, self._progress,
        )  # fmt: skip

    def tuner(self, frozen: Judged) -> FineTuner:
        """Return what trains the backbone, too."""
        return FineTuner(
            self.extractors[0], self.examples, self.parts, self.seen[0], frozen, self._wanted.for_tuning, self.layout,
            self._run, self._progress,
        )  # fmt: skip
