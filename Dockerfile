# Triton Diffusers on NVIDIA's Triton image, which brings tritonserver and its Python backend.
#
#   docker build -t triton-diffusers .
#   docker run --gpus all --shm-size 1g -p 127.0.0.1:8000-8002:8000-8002 -v /path/to/model:/model:ro triton-diffusers
#
# /model is the model directory (it holds base_model/); without a volume there, the emoji model is served.
# /cache keeps what makes later starts faster; a volume there has to be writable for the user 10001.
# Nothing is stored: images are in the reply (`return_images`, `use_base64`). To store them:
#   -e TRITON_DIFFUSERS_STORE=oss://bucket/prefix -e TRITON_DIFFUSERS_OSS_REGION=cn-hangzhou -e OSS_ACCESS_KEY_ID …
#   -v /path/to/results:/results -e TRITON_DIFFUSERS_STORE=/results -e TRITON_DIFFUSERS_STORE_URL=https://host/path
# What follows the image's name are options of `serve`. With `docker stop -t 60`, add `--exit-timeout 50`.
#
# The tag: releases before 26.04 have holes that NVIDIA's bulletins of 2025 and 2026 describe (remote execution through
# the Python backend's shared memory, overflows of shapes, bypassed access rules); those before 26.05 end with a deeply
# nested JSON body. Its Python must be one that the package supports, 3.11 to 3.13.
FROM nvcr.io/nvidia/tritonserver:26.10-py3

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin triton-diffusers \
    && install --directory --owner 10001 --group 10001 /cache /results

# Packages before code: a change of the code leaves this layer alone. The versions are those that the tests ran with.
# All that a server can be asked for is here.
WORKDIR /opt/triton-diffusers
COPY pyproject.toml README.md LICENSE constraints.txt ./
RUN pip install --no-cache-dir --break-system-packages --constraint constraints.txt \
    '.[engine,gateway,openvino,translate,csanmt,controlnet,heif,oss,s3,postgres,modelscope]' 'tritonclient[grpc]'
COPY models/emoji /model
COPY models/translator models/translator
COPY model_repository model_repository
COPY triton_diffusers triton_diffusers
RUN pip install --no-cache-dir --break-system-packages --no-deps .
# Convert the translator once, rather than at each start of a container.
RUN python3 -c 'from triton_diffusers.settings import Settings; from triton_diffusers.translate.loading import load_engine; load_engine(Settings())'

ENV TRITON_DIFFUSERS_MODEL_DIR=/model \
    TRITON_DIFFUSERS_CACHE_DIR=/cache \
    TRITON_DIFFUSERS_STORE=
USER 10001:10001
EXPOSE 8000 8001 8002 8080
# Large models take minutes to load.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
# Docker kills what has not stopped 10 seconds after SIGTERM; serve needs up to 5 seconds more than its exit timeout.
ENTRYPOINT ["tini", "--", "triton-diffusers", "serve", "--host", "0.0.0.0", "--exit-timeout", "4", \
    "--model-repository", "/opt/triton-diffusers/model_repository"]
