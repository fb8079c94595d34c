"""A configuration file says what the command line says, and what is wrong with it is named."""

import dataclasses
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

import artifact
from artifact.layout import EXTRA
from tests.training.conftest import call
from tests.training.fit.test_defaults import data
from training.cli import main
from training.commands import config, train
from training.errors import TrainingError
from training.fit.choice import choose
from training.fit.recipe import PRESETS, Recipe
from training.fit.settings import TrainSettings
from training.publish import configuration

pytestmark = pytest.mark.keras

WEIGHTS = "variables/variables.data-00000-of-00001"


def parse(tmp_path: Path, text: str, *arguments: str) -> TrainSettings:
    """Parse a file and arguments as ``main`` does."""
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    return train.parse(["--config", str(file), *arguments])


def chosen(settings: TrainSettings) -> Recipe:
    """Return the recipe that is asked for, for more pictures than any batch has."""
    return choose(settings.recipe, data([1_000, 1_000]), taught=False)


def test_the_file_gives_options_and_the_command_line_wins(tmp_path: Path) -> None:
    """An option in the file takes the place of the default, one on the command line that of the file."""
    text = 'data = "pictures"\nvalidation-images = 7\nint8 = true\nepochs = 3\nprecision = "float32"\n'
    settings = parse(tmp_path, text, "--epochs", "5", "--data", "others")
    assert (settings.data, settings.recipe.epochs) == (Path("others"), 5)
    assert (settings.validation_images, settings.int8, settings.precision) == (7, True, "float32")


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("", (), None),
        ("", ("--int8",), True),
        ("", ("--no-int8",), False),
        ("int8 = true\n", (), True),
        ("int8 = false\n", (), False),
        ("int8 = false\n", ("--int8",), True),
        ("int8 = true\n", ("--no-int8",), False),
    ],
)
def test_a_switch_can_be_turned_off(
    tmp_path: Path, text: str, arguments: tuple[str, ...], expected: bool | None
) -> None:
    """What is on by default can be turned off, in a file as well; the run's file repeats it, and leaves open what was.

    A switch that can only be turned on stands in the file where it is.
    """
    settings = parse(tmp_path, text, *arguments)
    assert settings.int8 is expected
    written = configuration.write(settings.repeatable, Recipe())
    assert tomllib.loads(written).get("int8") is expected
    assert "deterministic" not in tomllib.loads(written)
    assert parse(tmp_path, written).int8 is expected


@pytest.mark.parametrize(("minutes", "expected"), [("0", 0.0), ("2.5", 2.5)])
def test_minutes_may_be_none_at_all(tmp_path: Path, minutes: str, expected: float) -> None:
    """0 is a number of minutes to tune for, on the command line and in a file, and the run's file repeats it."""
    settings = parse(tmp_path, "", "--minutes", minutes)
    assert settings.minutes == expected
    written = configuration.write(settings.repeatable, Recipe())
    assert parse(tmp_path, written).minutes == parse(tmp_path, f"minutes = {minutes}\n").minutes == expected


def test_every_field_of_the_recipe_can_be_set(tmp_path: Path) -> None:
    """Each field takes a value other than every preset's, and comes back in the recipe."""
    wanted = Recipe(**{field.name: _other(getattr(Recipe(), field.name)) for field in dataclasses.fields(Recipe)})
    text = configuration.write(train.parse([]).repeatable, wanted)
    assert chosen(parse(tmp_path, text)) == wanted


def _other(value: Any) -> Any:
    """Return another value of the same type; None, for which there is no word in TOML, stays."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 3 if isinstance(value, int) else value / 2
    others: dict[type, Any] = {tuple: (3, 5), str: "no longer a preset"}
    return others.get(type(value))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_what_a_run_writes_repeats_its_recipe(tmp_path: Path, preset: str) -> None:
    """The file of a run holds its whole recipe, whatever options it came from, and nothing of where it was put."""
    settings = train.parse(["--preset", preset, "--epochs", "4", "--models", "elsewhere", "--publish-anyway"])
    repeatable = {**settings.repeatable, "name": "pets", "precision": "float32"}
    text = configuration.write(repeatable, chosen(settings), "rate 1 -> 0.5")
    assert "\n# It was changed while it ran, which is not repeated: rate 1 -> 0.5.\n" in text
    assert not {"models", "run", "publish-anyway", "fresh"} & tomllib.loads(text).keys()
    again = parse(tmp_path, text)
    assert chosen(again) == dataclasses.replace(PRESETS[preset], epochs=4)
    assert (again.name, again.precision, again.recipe.preset) == ("pets", "float32", preset)


def test_a_recipe_of_its_own_stays_when_presets_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a preset's name in [recipe], what that preset is now does not matter, nor whether it is there at all."""
    before = PRESETS["best"]
    text = configuration.write(train.parse(["--preset", "best"]).repeatable, before)
    monkeypatch.setitem(PRESETS, "best", dataclasses.replace(before, epochs=99, cutout=1))
    assert chosen(parse(tmp_path, text)) == before
    monkeypatch.delitem(PRESETS, "best")
    assert chosen(parse(tmp_path, text)) == before


def test_a_preset_on_the_command_line_takes_the_place_of_the_recipe(tmp_path: Path) -> None:
    """The recipe that a file carries is that of its preset; another preset is another recipe."""
    text = '[recipe]\npreset = "best"\ncutout = 3\n'
    assert chosen(parse(tmp_path, text)).cutout == 3
    assert chosen(parse(tmp_path, text, "--preset", "smoke")) == PRESETS["smoke"]


def test_fields_without_a_preset_change_the_one_that_is_chosen(tmp_path: Path) -> None:
    """A [recipe] of a few fields works on any preset."""
    for preset in ("standard", "smoke"):
        expected = dataclasses.replace(PRESETS[preset], cutout=3, epochs=2)
        assert chosen(parse(tmp_path, "[recipe]\ncutout = 3\nepochs = 2\n", "--preset", preset)) == expected


def test_an_option_of_several_values_takes_one_or_a_list(tmp_path: Path) -> None:
    """Teachers stand in a list, one may stand alone, and those of the command line take the place of all of them."""
    two = (Path("models/a/1"), Path("models/\N{SNOWMAN}/2"))
    text = configuration.write(train.parse(["--teacher", *map(str, two)]).repeatable, Recipe())
    assert parse(tmp_path, text).teachers == two
    assert parse(tmp_path, text, "--teacher", "models/b/1").teachers == (Path("models/b/1"),)
    assert parse(tmp_path, 'teacher = "models/a/1"').teachers == (Path("models/a/1"),)


def test_values_are_written_so_that_toml_reads_them_back(tmp_path: Path) -> None:
    """Quotes, backslashes, control characters and any alphabet survive; a name that is no text does no harm."""
    path = 'a "b" \\ c\td\x7f\N{SNOWMAN}\N{GRINNING FACE}'
    text = configuration.write(train.parse(["--data", path]).repeatable, Recipe())
    assert parse(tmp_path, text).data == Path(path)
    text = configuration.write(train.parse(["--data", "\udcff"]).repeatable, Recipe())
    assert parse(tmp_path, text).data == Path("?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"there is no option epoch; allowed are .*\bepochs\b.* and \[recipe\]"),
        ("fresh = true", "there is no option fresh"),
        ("config = 'x'", "there is no option config"),
        ("epochs = 0", "epochs: 0 is below 1"),
        ("epochs = '3'", 'epochs must be a whole number, not "3"'),
        ("epochs = 2.5", "epochs: '2.5' is not a whole number"),
        ("epochs = true", "epochs must be .*, not true"),
        ("epochs = [3]", "epochs must be .*, not a list"),
        ("int8 = 1", "int8 must be true or false, not 1"),
        ("minutes = -1", "minutes: -1 is not a number from 0"),
        ("minutes = nan", "minutes: nan is not a number from 0"),
        ("minutes = inf", "minutes: inf is not a number from 0"),
        ("preset = 'fastest'", 'preset must be one of .*smoke.*, not "fastest"'),
        ("data = 3", "data must be text, not 3"),
        ("data = ['x']", "data must be text, not a list"),
        ("teacher = 3", "teacher must be text, not 3"),
        ("teacher = ['x', 3]", "teacher must be text, not 3"),
        ("teacher = [['x']]", "teacher must be text, not a list"),
        ("teacher = []", "teacher must have at least one value"),
        ("name = '../x'", "name: '../x' must consist of letters"),
        ("recipe = 3", r"recipe must be a table, \[recipe\]"),
        ("[recipe]\nwidth = 3", r"\[recipe\] has no field width; allowed are .*\bwidths\b"),
        ("[recipe]\nepochs = 0", r"\[recipe\] epochs: 0 is below 1"),
        ("[recipe]\nweight_decay = '1'", r'\[recipe\] weight_decay must be a number, not "1"'),
        ("[recipe]\nweight_decay = nan", r"\[recipe\] weight_decay must be a number from 0, not nan"),
        ("[recipe]\nmomentum = 1.0", r"\[recipe\] momentum must be below 1, not 1.0"),
        ("[recipe]\nchange = 50", r"\[recipe\] change must be at most 1, not 50"),
        ("[recipe]\nteacher_share = 90", r"\[recipe\] teacher_share must be at most 1, not 90"),
        ("[recipe]\nteacher_temperature = 0", r"\[recipe\] teacher_temperature must be above 0, not 0"),
        ("[recipe]\nflip = 1", r"\[recipe\] flip must be true or false, not 1"),
        ("[recipe]\ntranslation = -1", r"\[recipe\] translation must be a number from 0, not -1"),
        ("[recipe]\nwidths = 64", r"\[recipe\] widths must be a list, not 64"),
        ("[recipe]\nwidths = []", r"\[recipe\] widths must be a list"),
        ("[recipe]\nwidths = [64, 0]", r"\[recipe\] widths must hold numbers from 1"),
        ("[recipe]\nwidths = [64, 'x']", r'\[recipe\] widths must be a whole number, not "x"'),
        ("preset = 'smoke'\n[recipe]\npreset = 'best'", "preset stands twice"),
        ("epochs = ", "is not a TOML file"),
        ("name = '\xff'", None),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str | None) -> None:
    """A key that is none, and a value that its key does not take, are named with what is allowed."""
    file = tmp_path / "run.toml"
    file.write_bytes(text.encode("latin1"))
    with pytest.raises(TrainingError, match=message or "is not a TOML file") as error:
        config.read(file, train.OPTIONS)
    assert str(error.value).startswith(str(file))


def test_a_wrong_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line ends with exit code 2, before anything is loaded, and its last line names the file."""
    with pytest.raises(SystemExit) as exit_:
        main(["--config", str(tmp_path / "none.toml")])
    assert exit_.value.code == 2
    assert f"{tmp_path / 'none.toml'} cannot be read: No such file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_version_repeats_its_training(smoke: tuple[Path, str], tmp_path: Path) -> None:
    """The file that a version carries trains one with the same weights, to the last bit."""
    version = shutil.copytree(smoke[0], tmp_path / "models" / "smoke" / "1")
    file = version / EXTRA / configuration.FILE
    code, printed, errors = call(["--config", file, "--models", tmp_path / "models", "--run", tmp_path / "run"])
    assert code == 0, errors
    first, second = (artifact.validate(version.with_name(number)) for number in "12")
    assert second.files[WEIGHTS] == first.files[WEIGHTS]
    assert second.files[f"{EXTRA}/{configuration.FILE}"] == first.files[f"{EXTRA}/{configuration.FILE}"]
    assert f"No worse than the version before: {first.metrics.accuracy:.2%} of 500 images" in printed
