"""The project's own routes: ``/predict``, ``/model``, ``/health`` and ``/metrics``."""
