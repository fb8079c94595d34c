"""The service: a model version in, answers over HTTP out. Flask on gunicorn, OpenVINO or TensorFlow below."""

__version__ = "0.1.0"
