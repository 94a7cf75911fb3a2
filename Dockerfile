# Triton Diffusers on NVIDIA's Triton image (it brings tritonserver and the Python backend).
#
#   docker build -t triton-diffusers .
#   docker run --gpus all --shm-size 1g -p 8000-8002:8000-8002 -v /path/to/model:/model triton-diffusers
#
# The model directory is /model (it holds base_model/); without a volume there, the emoji model is served.
# Results are kept in /results, unless TRITON_DIFFUSERS_STORE names another place (`oss://bucket/prefix`).
# What makes later starts faster is in /root/.cache/triton-diffusers: a volume there keeps it.
# The image's Python must be one that the package supports (3.11 to 3.13; this tag has 3.12).
FROM nvcr.io/nvidia/tritonserver:25.06-py3

WORKDIR /opt/triton-diffusers
COPY pyproject.toml README.md LICENSE ./
COPY triton_diffusers triton_diffusers
# All that a server can be asked for.
RUN pip install --no-cache-dir --break-system-packages \
    '.[engine,openvino,translate,csanmt,controlnet,oss,modelscope]' 'tritonclient[grpc]>=2.50'
COPY model_repository model_repository
COPY models/emoji /model
COPY models/translator models/translator

ENV TRITON_DIFFUSERS_MODEL_DIR=/model
ENV TRITON_DIFFUSERS_STORE=/results
EXPOSE 8000 8001 8002
ENTRYPOINT ["triton-diffusers", "serve", "--host", "0.0.0.0", "--model-repository", "/opt/triton-diffusers/model_repository"]
