"""What an interrupted training says about going on."""

from pathlib import Path

from training.fit.resume import how_to_resume

CONTAINER = {"DARKROOM_CONTAINER": "1"}


def test_on_a_machine_it_is_the_same_command(tmp_path: Path) -> None:
    """Whoever typed a command knows it."""
    assert how_to_resume(["--epochs", "4"], {}, tmp_path, "box") == (
        "Give the same command again to go on from the last epoch."
    )


def test_compose_has_told_the_exact_command(tmp_path: Path) -> None:
    """Options with spaces are quoted, so that the line can be pasted."""
    environment = {**CONTAINER, "DARKROOM_COMMAND": "docker compose --profile train run --rm trainer"}
    assert how_to_resume(["--data", "/data/my cats"], environment, tmp_path, "box") == (
        "This goes on from the last epoch: docker compose --profile train run --rm trainer --data '/data/my cats'"
    )


def test_in_a_container_checkpoints_in_no_volume_are_in_the_container(tmp_path: Path) -> None:
    """The same command would begin anew in another container, so this one is named."""
    advice = how_to_resume([], CONTAINER, tmp_path / "runs", "0123456789ab")
    assert "docker start --attach 0123456789ab" in advice
    assert "--rm" in advice


def test_in_a_container_checkpoints_in_a_volume_outlive_it() -> None:
    """Then the same command finds them; /proc stands for a volume here."""
    assert "the same command" in how_to_resume([], CONTAINER, Path("/proc/self/runs"), "0123456789ab")
