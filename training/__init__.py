"""Images in, a published model version out. Run it with ``python -m training``."""
