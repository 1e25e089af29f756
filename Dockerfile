# Three images from one file; docker-compose.yml gives each process its command.
#   scorer  `graft student serve`, and the commands of versions: no torch, no Feast, no Kafka
#   full    every command
#   entry   Debian's HAProxy, in front of the scorers
# PIP_EXTRA_INDEX_URL may name an index with torch's CPU build, which spares `full` about 5 GB of CUDA libraries.
FROM python:3.11-slim AS libraries-scorer
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The libraries are a layer of their own: a change in the code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN python3 -m venv --without-pip /venv && python3 -m pip --python /venv/bin/python install --quiet '.[scorer]'

FROM libraries-scorer AS libraries-full
ARG PIP_EXTRA_INDEX_URL=""
RUN PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" python3 -m pip --python /venv/bin/python install --quiet '.[full]'

FROM scratch AS rooms
COPY runtime runtime
COPY features features
COPY stream stream
COPY teacher_cache teacher_cache
COPY student student
COPY graft graft

FROM libraries-scorer AS installed-scorer
COPY --from=rooms / .
RUN python3 -m pip --python /venv/bin/python install --quiet --no-deps --force-reinstall .

FROM libraries-full AS installed-full
COPY --from=rooms / .
RUN python3 -m pip --python /venv/bin/python install --quiet --no-deps --force-reinstall .

FROM python:3.11-slim AS user
RUN useradd --create-home --uid 10001 graft && install -d -o graft -g graft /project /versions /examples /secrets
LABEL org.opencontainers.image.title="graft" org.opencontainers.image.licenses="Apache-2.0"
# The root is read-only where compose runs it: what libraries keep for their user goes below /tmp.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba GRAFT_PROJECT=/project GRAFT_VERSIONS=/versions
WORKDIR /project
ENTRYPOINT ["graft"]

FROM python:3.11-slim AS entry
RUN apt-get update -qq \
  && apt-get install -y -qq --no-install-recommends haproxy \
  && rm -rf /var/lib/apt/lists/*
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM user AS scorer
COPY --from=installed-scorer /venv /venv
USER graft
CMD ["student", "serve"]

FROM user AS full
COPY --from=installed-full /venv /venv
USER graft
