"""What a check finds: kinds of findings in the order that they are told, and suggestions for single pictures."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

LEAVE_OUT = "leave out"
MOVE_TO = "move to "
LOOK_AT = "look at"
ADD, REMOVE = "add ", "remove "


class Kind(Enum):
    """A kind of finding: its name in CSV and JSON, what one picture has, what many have, and a heading."""

    DAMAGED = "damaged", "cannot be read", "cannot be read", "Cannot be read"
    ACROSS_SPLITS = (
        "duplicate across splits",
        "is in another split as well",
        "are in another split as well",
        "In two splits: what is measured on them is too good",
    )
    ACROSS_CLASSES = (
        "duplicate across classes",
        "is under another label as well",
        "are under another label as well",
        "Under two labels: one must be wrong",
    )
    EXACT = "exact duplicate", "is a copy of another", "are copies of others", "Copies"
    NEAR = "near duplicate", "is nearly the same as another", "are nearly the same as others", "Nearly the same"
    WRONG_LABEL = "wrong label", "probably has a wrong label", "probably have a wrong label", "Probably a wrong label"
    MISSING_LABEL = "label missing", "probably lacks a label", "probably lack a label", "Probably a label missing"
    LABEL_TOO_MANY = (
        "label too many",
        "probably has a label too many",
        "probably have a label too many",
        "Probably a label too many",
    )
    OUTLIER = "outlier", "looks like none of the others", "look like none of the others", "Like none of the others"
    BLANK = "blank", "shows nothing", "show nothing", "Blank"
    DARK = "dark", "is extremely dark", "are extremely dark", "Extremely dark"
    BRIGHT = "bright", "is extremely bright", "are extremely bright", "Extremely bright"
    BLURRED = "blurred", "is blurred", "are blurred", "Blurred"
    TINY = "tiny", "is tiny", "are tiny", "Tiny"
    ODD = "odd file", "is an odd file", "are odd files", "Odd files"

    def __init__(self, word: str, one: str, many: str, heading: str) -> None:
        self.word, self.one, self.many, self.heading = word, one, many, heading


@dataclass(frozen=True)
class Suggestion:
    """What may be wrong with a picture, and what to do.

    ``path`` is relative to the folder, with forward slashes. ``suggestion`` is ``leave out``, ``move to LABEL``,
    ``add LABEL``, ``remove LABEL`` or ``look at``, which does nothing by itself. ``certainty`` is 0 to 1.
    ``beside`` are the paths of others that it is about, such as what it is a copy of.
    """

    path: str
    kind: Kind
    suggestion: str
    certainty: float
    why: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leak:
    """The accuracy on the test pictures that were given, with those that are in the training as well and without.

    Of several labels it is the mean average precision, as ``measure`` says.
    """

    pictures: int
    leaked: int
    accuracy: float
    accuracy_without: float | None
    measure: str = "accuracy"


@dataclass(frozen=True)
class Report:
    """What a check of ``folder`` found.

    ``pictures`` is how many can be read; ``classes`` how many of each label, of which a picture may have several if
    ``multi_label``. ``suggestions`` are sorted by kind, the
    most certain first. ``notes`` are sentences on the classes, and on what was passed over. ``formats`` counts the
    files of each, and ``sides`` are the shorter sides in pixels of the smallest, the middle and the largest picture.
    """

    folder: Path
    pictures: int
    classes: dict[str, int]
    suggestions: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    formats: dict[str, int]
    sides: tuple[int, int, int]
    confused: tuple[tuple[str, str, float], ...] = ()
    leak: Leak | None = None
    multi_label: bool = False
    seconds: float = field(default=0.0, compare=False)

    def of(self, kind: Kind) -> list[Suggestion]:
        """Return the suggestions of a kind, most certain first."""
        return [suggestion for suggestion in self.suggestions if suggestion.kind is kind]

    @property
    def nothing(self) -> bool:
        """Whether nothing is wrong."""
        return not self.suggestions and not self.notes

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "folder": str(self.folder),
            "pictures": self.pictures,
            "classes": self.classes,
            "formats": self.formats,
            "shorter_side": dict(zip(("smallest", "middle", "largest"), self.sides, strict=True)),
            "found": {kind.word: len(self.of(kind)) for kind in Kind if self.of(kind)},
            "notes": list(self.notes),
            "confused": [{"labels": [one, other], "share": share} for one, other, share in self.confused],
            "leak": vars(self.leak) if self.leak else None,
            "suggestions": [
                {
                    "path": found.path,
                    "kind": found.kind.word,
                    "suggestion": found.suggestion,
                    "certainty": round(found.certainty, 4),
                    "why": found.why,
                    "beside": list(found.beside),
                }
                for found in self.suggestions
            ],
        }
