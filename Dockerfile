# Build and runtime use the same image: the environment is copied to the path it was made at.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /src
RUN python -m venv --without-pip /opt/mcp-sidecar
COPY requirements/run.lock requirements/run.lock
# Wheels only: a source distribution would run code of its own while it is built.
RUN pip --python /opt/mcp-sidecar/bin/python install --only-binary :all: --require-hashes -r requirements/run.lock
# The build backend with what it needs, as locked; if it comes to need more, pip refuses and names it.
COPY requirements/test.lock requirements/test.lock
RUN awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } wanted' \
        requirements/test.lock > /tmp/backend.lock \
    && pip install --only-binary :all: --require-hashes -r /tmp/backend.lock
COPY LICENSE README.md pyproject.toml ./
COPY proxy proxy
COPY policies/packs policies/packs
RUN pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /tmp/dist . \
    && pip --python /opt/mcp-sidecar/bin/python install --no-index --no-deps /tmp/dist/*.whl
# Compiled here because the running file system is read-only; unchecked, because nobody edits an image.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/mcp-sidecar/lib

FROM python:3.13-slim
LABEL org.opencontainers.image.title="mcp-sidecar" \
      org.opencontainers.image.description="A transparent, JSON-RPC-aware reverse proxy that stands next to one MCP server" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/mcp-sidecar/bin:$PATH PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/mcp-sidecar /opt/mcp-sidecar
# A number, so that a kubelet can see that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 8080 9901
# Of life, not of readiness: whoever restarts us for an outage of the server mends nothing.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["mcp-sidecar", "healthcheck"]
# Exec form: the sidecar itself is the first process and hears TERM.
ENTRYPOINT ["mcp-sidecar"]
CMD ["run"]
