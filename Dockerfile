# docker build -t unmask .                                        for NVIDIA GPUs (docker run --gpus all ...), and any CPU
# docker build --build-arg UV_TORCH_BACKEND=cpu -t unmask-cpu .   for CPUs alone: a few GB less
# docker run -v "$PWD:/data" unmask pretrain photos --minutes 20
FROM python:3.12-slim
ARG UV_TORCH_BACKEND
COPY . /source
# npm fetches the browser's runtime into the wheel, for `unmask page`
RUN apt-get update && apt-get install --yes --no-install-recommends npm \
    && pip install --no-cache-dir uv \
    && uv pip install --system --no-cache "/source[dense,hub,onnx,places,search,tiff]" \
    && apt-get purge --yes --auto-remove npm \
    && rm -rf /source /var/lib/apt/lists/*
WORKDIR /data
ENTRYPOINT ["unmask"]
