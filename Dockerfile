# Three images from one file; docker-compose.yml gives each process its command, `make image` builds the first two.
#   scorer  `graft student serve`, and the commands of versions: no torch, no Feast, no Kafka
#   full    every command
#   entry   Debian's HAProxy, in front of the scorers
# `make pin` writes the digest behind the tag; PYTHON_IMAGE as a build argument names another image.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_HASHES=1
WORKDIR /src
COPY release/locks/tools.txt release/locks/
RUN python3 -m venv /tools && /tools/bin/pip install --quiet -r release/locks/tools.txt

# The libraries are a layer of their own: a change in the code does not install them again. Each file that is installed
# is one whose digest stands in release/locks (`make lock`).
FROM tools AS libraries-scorer
COPY release/locks/scorer.txt release/locks/
RUN python3 -m venv --without-pip /venv \
  && /tools/bin/pip --python /venv/bin/python install --quiet -r release/locks/scorer.txt

FROM libraries-scorer AS libraries-full
COPY release/locks/full.txt release/locks/torch-cpu.txt release/locks/torch-cuda.txt release/locks/
RUN /tools/bin/pip --python /venv/bin/python install --quiet -r release/locks/full.txt
# An index with torch's CPU build spares about 5 GB of CUDA libraries; where none has it, PyPI's build is taken.
ARG PIP_EXTRA_INDEX_URL=""
RUN export PIP_EXTRA_INDEX_URL; pip="/tools/bin/pip --python /venv/bin/python install --quiet" \
  && { $pip -r release/locks/torch-cpu.txt || $pip -r release/locks/torch-cuda.txt; }

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY features features
COPY stream stream
COPY teacher_cache teacher_cache
COPY student student
COPY graft graft
RUN PIP_REQUIRE_HASHES=0 /tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .

# graft itself, and the list of all parts (a CycloneDX SBOM of the Python side) beside it.
FROM libraries-scorer AS installed-scorer
COPY --from=wheel /wheel /wheel
RUN PIP_REQUIRE_HASHES=0 /tools/bin/pip --python /venv/bin/python install --quiet --no-deps /wheel/*.whl \
  && find /venv/lib -type d -name tests -prune -exec rm -rf {} + \
  && /tools/bin/cyclonedx-py environment --output-reproducible --output-file /venv/sbom.cdx.json /venv/bin/python

FROM libraries-full AS installed-full
COPY --from=wheel /wheel /wheel
RUN PIP_REQUIRE_HASHES=0 /tools/bin/pip --python /venv/bin/python install --quiet --no-deps /wheel/*.whl \
  && /tools/bin/cyclonedx-py environment --output-reproducible --output-file /venv/sbom.cdx.json /venv/bin/python

FROM ${PYTHON_IMAGE} AS user
RUN useradd --create-home --uid 10001 graft && install -d -o graft -g graft /project /versions /examples /secrets
# The root is read-only where compose runs it: what libraries keep for their user goes below /tmp.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba GRAFT_PROJECT=/project GRAFT_VERSIONS=/versions
WORKDIR /project
ENTRYPOINT ["graft"]
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.licenses="Apache-2.0" org.opencontainers.image.base.name="${PYTHON_IMAGE}"

FROM ${PYTHON_IMAGE} AS entry
RUN apt-get update -qq \
  && apt-get install -y -qq --no-install-recommends haproxy \
  && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="graft-entry" org.opencontainers.image.description="HAProxy in front of graft's scorers"
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM user AS scorer
COPY --from=installed-scorer /venv /venv
USER graft
CMD ["student", "serve"]
ARG VERSION="" REVISION=""
LABEL org.opencontainers.image.title="graft-scorer" org.opencontainers.image.description="graft's scorer: answers from published students" \
  org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

FROM user AS full
COPY --from=installed-full /venv /venv
USER graft
ARG VERSION="" REVISION=""
LABEL org.opencontainers.image.title="graft" org.opencontainers.image.description="graft: every command" \
  org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
