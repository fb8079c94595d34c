"""The study that this project began with, as named configurations: ``python -m training study``."""
