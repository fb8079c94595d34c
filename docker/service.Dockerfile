# The service: Python, OpenVINO and the bundled model version; no compiler, no TensorFlow. Build it from the
# repository's root: docker build --file docker/service.Dockerfile --tag service .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
COPY requirements/service.txt /build/
RUN python -m venv --without-pip /venv
# --only-binary keeps installing from running code. Bytecode is compiled here, since a read-only container cannot keep
# its own and would compile everything again at every start.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /venv/bin/python install --quiet --disable-pip-version-check --compile \
    --no-deps --require-hashes --only-binary :all: -r /build/service.txt
# OpenVINO's plugins for Intel's GPUs and NPUs, and its C++ headers, have no use here and are a third of it.
RUN rm -r /venv/lib/python3*/site-packages/openvino/include \
    /venv/lib/python3*/site-packages/openvino/libs/cache.json \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_gpu_plugin.so \
    /venv/lib/python3*/site-packages/openvino/libs/libopenvino_intel_npu_plugin.so
WORKDIR /app
COPY artifact/ artifact/
COPY imaging/ imaging/
COPY service/ service/
RUN python -m compileall -q --invalidation-mode unchecked-hash .

FROM ${PYTHON_IMAGE}
COPY --from=builder /venv /venv
COPY docker/healthcheck.py /usr/local/lib/darkroom/
COPY models/ /models/
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
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-I", "/usr/local/lib/darkroom/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]
