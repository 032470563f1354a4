# Two stages: one that has everything, and one that has nothing but what the first has put together.
#
# A tag names another image tomorrow. Build what is released with digests:
#   docker build --build-arg BASE=python:3.14-trixie@sha256:… --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) .
# Not the slim variant: this one has `strip`, and nothing of it is left in the end but the interpreter.
ARG BASE=python:3.14-trixie

FROM ${BASE} AS build
# image: with all extras. run: without them, for images that need no Valkey, CEL, schemas, redaction, traces.
ARG LOCK=image
# 1: what a call passes through is compiled (docs/costs.md). 0: Python alone, made in seconds.
ARG COMPILED=1
# Seconds since 1970 that every file is dated with.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements requirements
# Wheels only: a source distribution would run code of its own while it is built.
RUN pip install --only-binary :all: --require-hashes --target /packages -r "requirements/${LOCK}.lock"
# The build backend with what it needs, as locked; if it comes to need more, pip refuses and names it.
RUN awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } wanted' \
        requirements/test.lock > /tmp/backend.lock \
    && pip install --only-binary :all: --require-hashes -r /tmp/backend.lock \
    && pip install --only-binary :all: --require-hashes -r requirements/compile.lock
COPY CHANGELOG.md LICENSE README.md pyproject.toml ./
COPY deploy/release deploy/release
COPY policies policies
COPY proxy proxy
RUN MCP_SIDECAR_COMPILED="${COMPILED}" pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /tmp/dist . \
    && pip install --no-index --no-deps --target /packages /tmp/dist/*.whl
RUN python deploy/release/rootfs.py /packages /rootfs

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mcp-sidecar" \
      org.opencontainers.image.description="A transparent, JSON-RPC-aware reverse proxy that stands next to one MCP server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/usr/local/bin LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
COPY --from=build /rootfs /
# A number, so that a kubelet can see that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 8080 9901
# Of life, not of readiness: whoever restarts us for an outage of the server mends nothing.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["mcp-sidecar", "healthcheck"]
# Exec form: the sidecar itself is the first process and hears TERM. There is no shell that could stand between.
ENTRYPOINT ["mcp-sidecar"]
CMD ["run"]
