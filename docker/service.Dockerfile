# The service: Python, OpenVINO and the bundled model version; no compiler, no TensorFlow. Build it from the
# repository's root: docker build --file docker/service.Dockerfile --tag darkroom-service .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
COPY requirements/service-all.txt /build/
RUN python -m venv --without-pip /venv
# --only-binary keeps installing from running code.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /venv/bin/python install --quiet --disable-pip-version-check --no-compile \
    --no-deps --require-hashes --only-binary :all: -r /build/service-all.txt
# OpenVINO's plugins for Intel's GPUs and NPUs (which its builds for other processors lack), its C++ headers, and the
# packages' own tests have no use here and are a third of it.
RUN rm -rf /venv/lib/python3*/site-packages/openvino/include \
    /venv/lib/python3*/site-packages/openvino/libs/cache.json \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_gpu_plugin.so \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_npu_plugin.so \
    && find /venv/lib -type d -name tests -prune -exec rm -r {} +
WORKDIR /app
COPY artifact/ artifact/
COPY imaging/ imaging/
COPY machine/ machine/
COPY service/ service/
# Bytecode is compiled here, since a read-only container cannot keep its own and would compile everything again at every
# start; by hash, which a file's time of change, of no meaning in an image, cannot make stale.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app /venv/lib

FROM ${PYTHON_IMAGE}
# Nothing here needs a program that gives its caller another user's rights.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=builder /venv /venv
COPY docker/healthcheck.py /usr/local/lib/darkroom/
# The version that the repository has; what else lies in models/ is private, and .dockerignore keeps it out as well.
COPY models/cifar10/5/ /models/cifar10/5/
WORKDIR /app
COPY --from=builder /app ./
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    MODEL_DIR=/models
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Many models take a while until all are looked at; the first good answer ends the period.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-I", "/usr/local/lib/darkroom/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]

# What differs from build to build comes last.
ARG CREATED= REVISION= SOURCE= VERSION=
ENV DARKROOM_REVISION=${REVISION}
LABEL org.opencontainers.image.title="Darkroom service" \
    org.opencontainers.image.description="Serves image classifiers over HTTP, on CPUs." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}"
