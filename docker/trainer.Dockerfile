# The trainer: TensorFlow, and OpenVINO to check what it exports. DEVICE says for what: gpu, with CUDA's libraries, which
# also runs without a GPU; or cpu, in a third of the size. Build it from the repository's root:
# docker build --file docker/trainer.Dockerfile --tag darkroom-trainer .
# docker build --file docker/trainer.Dockerfile --build-arg DEVICE=cpu --tag darkroom-trainer-cpu .
ARG DEVICE=gpu
ARG CUDA_IMAGE=nvidia/cuda:12.6.3-base-ubuntu24.04
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${CUDA_IMAGE} AS python-gpu
# hadolint ignore=DL3008
RUN apt-get update --quiet \
    && apt-get install --yes --quiet --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log
COPY requirements/trainer.txt /build/requirements.txt
# DARKROOM_DEVICE: whoever runs this image means to use a GPU, and is told where there is none; --cpu does without.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DARKROOM_DEVICE=gpu

FROM ${PYTHON_IMAGE} AS python-cpu
COPY requirements/trainer-cpu.txt /build/requirements.txt
ENV DARKROOM_DEVICE=cpu

# hadolint ignore=DL3006
FROM python-${DEVICE}
# Nothing here needs a program that gives its caller another user's rights.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# TensorFlow's headers and its parser of C only serve to compile operations of one's own; OpenVINO's plugins for Intel's
# GPUs and NPUs, its headers, and the packages' own tests have no use here. pip stays out of what it installs into.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tmp/pip \
    && python3 -m venv --without-pip /venv \
    && /tmp/pip/bin/python -m pip --python /venv/bin/python install --quiet --disable-pip-version-check --no-compile \
    --no-deps --require-hashes --only-binary :all: -r /build/requirements.txt \
    && rm -rf /tmp/pip /venv/lib/python3*/site-packages/tensorflow/include /venv/lib/python3*/site-packages/clang \
    /venv/lib/python3*/site-packages/openvino/include \
    /venv/lib/python3*/site-packages/openvino/libs/cache.json \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_gpu_plugin.so \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_npu_plugin.so \
    && find /venv/lib -type d -name tests -prune -exec rm -r {} +

# /runs holds checkpoints and logs, /cache what is downloaded. Any user may write there, and a volume begins with the
# rights of its folder here. Where nothing is mounted, /models belongs to nobody in particular, and not to root.
RUN mkdir -p /models /runs /cache && chmod 1777 /models /runs /cache && chown 10001:10001 /models /runs /cache
COPY docker/as-owner /usr/local/bin/
WORKDIR /app
COPY artifact/ artifact/
COPY imaging/ imaging/
COPY machine/ machine/
COPY training/ training/
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DARKROOM_CONTAINER=1 \
    MODEL_DIR=/models \
    RUN_DIR=/runs \
    HOME=/cache \
    KERAS_HOME=/cache/keras
STOPSIGNAL SIGTERM
ENTRYPOINT ["as-owner", "python", "-m", "training"]

# What differs from build to build comes last. The revision is also for the metadata of what the trainer trains; the
# image has no repository to ask.
ARG CREATED= REVISION= SOURCE= VERSION=
ENV DARKROOM_REVISION=${REVISION}
LABEL org.opencontainers.image.title="Darkroom trainer" \
    org.opencontainers.image.description="Trains an image classifier and publishes it as a model version." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}"
