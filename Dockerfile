# One image for every process of graft; docker-compose.yml gives each its command.
# PIP_EXTRA_INDEX_URL may name an index with torch's CPU build, which spares about 5 GB of CUDA libraries.
FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The dependencies are a layer of their own: a change in the code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN python3 -m venv /venv && PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" /venv/bin/pip install --quiet .
COPY runtime runtime
COPY features features
COPY stream stream
COPY teacher_cache teacher_cache
COPY student student
COPY graft graft
RUN /venv/bin/pip install --quiet --no-deps --force-reinstall .

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 graft && install -d -o graft -g graft /project /versions /examples
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GRAFT_PROJECT=/project GRAFT_VERSIONS=/versions
USER graft
WORKDIR /project
VOLUME ["/project", "/versions", "/examples"]
ENTRYPOINT ["graft"]
