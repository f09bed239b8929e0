# One image for every target: `docker run IMAGE serve devices`. Everything in it comes from requirements/runtime.lock.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app

# The locked packages change less often than the code: a layer of their own.
COPY requirements/runtime.lock requirements/runtime.lock
RUN pip install --require-hashes -r requirements/runtime.lock

COPY pyproject.toml README.md ./
COPY chassis chassis
COPY gen gen
COPY services services
COPY gateway gateway
COPY launcher launcher
RUN pip install --no-deps --no-build-isolation -e . \
 && python -m compileall -q chassis gen services gateway launcher \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin bas \
 && install -d -o bas -g bas -m 0700 /data /keys

USER bas
ENV BAS_DATA_DIR=/data BAS_AUTH_KEYS=/keys/keys.json BAS_LOG_FORMAT=json
VOLUME ["/data", "/keys"]
STOPSIGNAL SIGTERM

# Of all targets, those that listen in this container must be healthy, and one must.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["bas", "status", "--here"]

ENTRYPOINT ["bas"]
CMD ["--help"]
