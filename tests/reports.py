"""Made-up answers to made-up pictures, and what a report of them is made of."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from training.data.dataset import Pixels, Split
from training.evaluation.accuracy import Evaluation
from training.evaluation.tasks import AnyEvaluation
from training.report.contents import Contents, Cost

LABELS = ("red", "green", "blue")
COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200))


def evaluation(
    wrong: dict[int, int], labels: tuple[str, ...] = LABELS, of_each: int = 10, side: int = 32
) -> Evaluation:
    """Return answers to ``of_each`` pictures of each of three colours: right, but for the pictures in ``wrong``.

    Those are answered as the class that stands beside them, the later the surer. The names of their files have their
    numbers.
    """
    classes = np.repeat(np.arange(3), of_each)
    probabilities = np.full((len(classes), 3), 0.02, np.float32)
    for index, true in enumerate(classes.tolist()):
        sure = 0.96 if index not in wrong else 0.5 + 0.4 * index / len(classes)
        probabilities[index] = (1 - sure) / 2
        probabilities[index, wrong.get(index, true)] = sure
    images = np.stack([np.full((side, side, 3), COLOURS[number], np.uint8) for number in classes])
    names = tuple(f"test/{labels[number]}/{index}.png" for index, number in enumerate(classes.tolist()))
    return Evaluation(labels, "colours test", Split(images, classes, names=names), probabilities)


def contents(answered: AnyEvaluation, **changes: object) -> Contents:
    """Return what a report of ``answered`` is made of, with ``changes`` to its fields."""
    given = {
        "title": "colours",
        "uncalibrated": None,
        "history": [{"accuracy": 0.5, "loss": 1.0}, {"accuracy": 0.75, "loss": 0.5}],
        "costs": (Cost("float32", 13.5, 2.25, "97% of 30 images"), Cost("int8", 3.5, 0.75, "96% of 20 images")),
        "timed_on": "2 cores",
        "facts": (("code", "revision abc"),),
        "command": "darkroom train --config config.toml",
        **changes,
    }
    return Contents(evaluation=answered, **given)  # type: ignore[arg-type]  # by name


class Page(HTMLParser):
    """A page that was read: its elements, and the text that people see of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        """Note the end of one."""
        self._hidden -= tag == "style"
        self.text += " "

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += "" if self._hidden else data

    def pictures(self) -> list[Pixels]:
        """Return the pictures that the page has in itself, uint8 [H, W, 3] each."""
        addresses = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        contents = (base64.b64decode(address.partition("base64,")[2]) for address in addresses)
        return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
