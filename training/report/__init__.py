"""Pages for people: what came of a training, and what changed between two versions."""
