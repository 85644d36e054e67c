# Images of Mneme. Target `cpu` is the server on the CPU with the bundled demonstration model:
#   docker build --target cpu -t mneme:cpu .
# See deploy/README.md for building without Docker.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /mneme
COPY tools/packages.txt tools/
RUN apt-get update \
    && awk '$1 == "build" { print $2 }' tools/packages.txt \
    | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y --no-install-recommends
COPY . .
RUN cmake --preset release -DMNEME_ROOMS="base;proto;storage;kernels;engine;server;client" \
    && cmake --build build/release --target mneme-server mneme \
    && strip build/release/bin/mneme-server build/release/bin/mneme \
    && tools/runtime_packages.sh build/release/bin/mneme-server build/release/bin/mneme \
    > build/runtime_packages

FROM ${BASE_IMAGE} AS cpu
COPY --from=build /mneme/build/runtime_packages /tmp/
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive xargs -a /tmp/runtime_packages \
    apt-get install -y --no-install-recommends \
    && rm -rf /tmp/runtime_packages /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --user-group --home-dir /var/lib/mneme --create-home mneme
COPY --from=build /mneme/build/release/bin/mneme-server /mneme/build/release/bin/mneme /usr/local/bin/
COPY models/mneme-demo /models/mneme-demo
USER 65532:65532
EXPOSE 50051 9090
ENTRYPOINT ["mneme-server"]
CMD ["--model", "/models/mneme-demo", "--backend", "cpu", "--host", "0.0.0.0", "--port", "50051", \
     "--metrics_host", "0.0.0.0", "--metrics_port", "9090", \
     "--data_dir", "/var/lib/mneme"]
