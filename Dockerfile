# Ramal: one image, every command. `docker run IMAGE edge`, `… run authsvc registrar`, `… topics`; without one, `--help`.
#
# The image runs as uid 10001, with a read-only root and without any capability; it holds no compiler and no pip.
# Only `ramal up` writes: into /var/lib/ramal, a volume. How it is meant to be run: compose.yaml and k8s/.
ARG PYTHON=docker.io/library/python:3.13-slim

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The base's pip installs from outside: the environment that is copied never had one.
RUN python3 -m venv --without-pip /opt/ramal && python3 -m venv /opt/inventory \
    && /opt/inventory/bin/pip install --quiet 'cyclonedx-bom>=7'
# The core is compiled (setup.py): what that takes is in this stage, so the image has none of it. Where no compiler can be
# had: --build-arg COMPILE=0. Debian's own Python, unlike python.org's image, has its headers in a package.
ARG COMPILE=1
RUN [ "$COMPILE" = 0 ] || { \
    headers=$(python3 -c 'import os, sysconfig; \
print("" if os.path.exists(sysconfig.get_path("include") + "/Python.h") else "python3-dev")') \
    && (apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev $headers) >/tmp/apt.log 2>&1; } \
    || { tail -n 5 /tmp/apt.log; exit 1; }
WORKDIR /source
COPY pyproject.toml ./
# The dependencies first, from pyproject.toml alone: a change of the code does not fetch them again. Wheels only: what
# would have to be compiled fails here, and nothing that is fetched runs.
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["analytics"], sep="\n")' >/opt/requirements.txt \
    && /opt/inventory/bin/pip --python /opt/ramal/bin/python install --quiet --only-binary :all: -r /opt/requirements.txt
COPY . ./
RUN RAMAL_COMPILE=$COMPILE /opt/inventory/bin/pip --python /opt/ramal/bin/python install --quiet --no-deps . \
    && /opt/inventory/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        --output-file /opt/ramal/ramal.cdx.json /opt/ramal/bin/python

FROM ${PYTHON}
# Nothing may gain a privilege or install anything: no setuid bit, no pip, not even the copy within the standard library.
RUN echo 'ramal:x:10001:10001:Ramal:/var/lib/ramal:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'ramal:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/ramal \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && find / -xdev \( -path '*/python3*/ensurepip' -o -path '*-packages/pip' -o -path '*-packages/pip-*' \
        -o -path '*-packages/setuptools*' -o -path '*-packages/wheel*' -o -path '*/share/python-wheels' \
        -o -path '*/bin/pip*' \) -prune -exec rm -rf {} +
COPY --from=build /opt/ramal /opt/ramal
ENV PATH=/opt/ramal/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/var/lib/ramal RAMAL_HTTP_HOST=0.0.0.0 RAMAL_HTTP_PORT=8080
WORKDIR /var/lib/ramal
USER 10001:10001
EXPOSE 5060/udp 5060/tcp 8080/tcp
# Alive, not ready: who restarts what is unhealthy must not do so because Kafka is away.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-m", "ramal.probe", "/healthz"]
ENTRYPOINT ["ramal"]
CMD ["--help"]
ARG VERSION=0.1.0 REVISION=unknown
LABEL org.opencontainers.image.title="Ramal" \
    org.opencontainers.image.description="An event-sourced, distributed SIP registrar and proxy" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
