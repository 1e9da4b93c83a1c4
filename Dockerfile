# docker build -t unmask .                                        for NVIDIA GPUs (docker run --gpus all ...), and any CPU
# docker build --build-arg UV_TORCH_BACKEND=cpu -t unmask-cpu .   for CPUs alone: a few GB less
# docker run -v "$PWD:/data" unmask pretrain photos --minutes 20
FROM python:3.12-slim
ARG UV_TORCH_BACKEND
COPY . /source
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache "/source[dense,hub,onnx,places,search,tiff]" \
    && rm -rf /source
WORKDIR /data
ENTRYPOINT ["unmask"]
