# The trainer: TensorFlow with its CUDA libraries, and OpenVINO to check what it exports. It also runs without a GPU.
# Build it from the repository's root: docker build --file docker/trainer.Dockerfile --tag trainer .
ARG CUDA_IMAGE=nvidia/cuda:12.6.3-base-ubuntu24.04

FROM ${CUDA_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update --quiet \
    && apt-get install --yes --quiet --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/trainer.txt /build/
# TensorFlow's headers only serve to compile operations of one's own.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /venv \
    && /venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --no-deps --require-hashes --only-binary :all: -r /build/trainer.txt \
    && rm -rf /venv/lib/python3*/site-packages/tensorflow/include

# /runs holds checkpoints and logs, /cache what is downloaded. Any user may write there, so that
# `docker run --user` publishes versions that belong to whoever asked for them.
RUN mkdir -p /models /runs /cache && chmod 1777 /models /runs /cache
WORKDIR /app
COPY artifact/ artifact/
COPY imaging/ imaging/
COPY training/ training/
# The revision of the code, for the metadata of what it trains; the image has no repository to ask.
ARG REVISION
ENV DARKROOM_REVISION=${REVISION} \
    PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MODEL_DIR=/models \
    RUN_DIR=/runs \
    HOME=/cache \
    KERAS_HOME=/cache/keras
ENTRYPOINT ["python", "-m", "training"]
