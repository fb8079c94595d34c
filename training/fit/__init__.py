"""The training itself: recipes, optimisers, checkpoints, devices, and what a run is on record for."""
