"""What `check` can find: a row a kind, with its meaning and what to do about it."""

from dataclasses import dataclass, field
from typing import NamedTuple

KEEP, MOVE, RELABEL = ACTIONS = ("keep", "move", "relabel")
# Why a picture cannot be used, of errors.REASONS: where its bytes are to blame. Others may have vanished, be a folder, or
# be written just now: what lies there later is not what was looked at.
OF_CONTENT = {"empty", "not-an-image", "unsupported-format", "truncated", "corrupt", "too-large", "bad-features"}


class Kind(NamedTuple):
    """A kind of finding. `action`: what the plan suggests for the picture (one of ACTIONS)."""

    title: str
    meaning: str
    advice: str
    action: str = KEEP


KINDS = {
    # about single files and pictures
    "unreadable": Kind("Cannot be used", "the file is no picture, or damaged, or too large", "replace or remove it", MOVE),
    "wrong-extension": Kind("Wrong extension", "the name says another format than the content", "nothing need be done"),
    "turned": Kind("Turned by EXIF", "programs that ignore EXIF show it lying", "nothing need be done"),
    "too-small": Kind("Very small", "fewer pixels than the network looks at", "find a larger copy"),
    "odd-shape": Kind("Very long or very wide", "squashed to a square, little of it can be seen", "crop it"),
    "dark": Kind("Dark", "nearly all of it is black", "see whether anything can be seen"),
    "bright": Kind("Bright", "nearly all of it is white", "cut off what is empty, or train with --crop-borders"),
    "blank": Kind("Blank", "one colour, or nearly", "remove it", MOVE),
    "blurry": Kind("Blurred", "no sharp edge anywhere", "see whether anything can be seen"),
    # about pictures that belong together
    "same-file": Kind("The same file twice", "equal byte by byte, in one class", "keep one", MOVE),
    "same-file-two-classes": Kind("The same file in two classes", "it teaches one thing and its opposite", "decide for one"),
    "near-duplicate": Kind("Nearly the same", "another size, cut, colour or frame of one picture", "keep those that differ"),
    "near-duplicate-two-classes": Kind("Nearly the same in two classes", "one of the labels may be wrong", "decide for one"),
    "near-duplicate-across-parts": Kind(
        "Nearly the same in training and test", "the test picture is known already, so the accuracy flatters", "remove one"
    ),
    # about labels
    "mislabelled": Kind("Probably mislabelled", "models that never saw it say another label", "look, and decide", RELABEL),
    "outlier": Kind("Unlike the others of its class", "far from every other picture of its class", "look, and decide"),
    # about classes
    "empty-class": Kind("Empty class", "the folder has no picture that can be used", "add pictures or remove the folder"),
    "tiny-class": Kind("Tiny class", "too few pictures to learn from and to judge by", "add pictures"),
    "unequal-classes": Kind("Very unequal classes", "the rare ones are easily overlooked", "add pictures to them"),
    "colliding-names": Kind("Class names that collide", "on other systems, or as file names, they are one", "rename one"),
    "thin-source": Kind("Thin source", "a class has next to no pictures of a source that others have", "add pictures of it"),
    # about the whole set
    "leak": Kind("Pictures that belong together", "a random split flatters", "train with --groups auto"),
    "shortcut": Kind("A shortcut", "a label can be told without looking at what is shown", "take pictures of all kinds"),
    "border": Kind("Borders that tell the class", "bars or frames mark a class", "train with --crop-borders"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    `kind`: a key of KINDS. `paths`: the pictures, the one that the finding is about first, those that it is compared with
    after it; empty for what is about a class or the whole set. `labels`: the classes concerned. `detail`: a few words
    with figures. `score`: 0 to 1, how sure, the surest first. `to`: for RELABEL, the suggested class. `reason`: why a
    picture cannot be used, a key of errors.REASONS; empty for other kinds.
    """

    kind: str
    detail: str
    paths: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    score: float = 1.0
    to: str = ""
    # Findings that a person may want to know but need not act upon do not change the exit code.
    matters: bool = field(default=True)
    reason: str = ""
