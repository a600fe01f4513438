# The service in a container: docs/service.md says how to start it. No secret and no photo is in the image.
FROM python:3.12-slim AS built
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY recipes recipes
COPY benchmarks/published.toml benchmarks/published.toml
# docker build --secret id=pip,src=pip.conf: where pip looks is yours to say, as for the much smaller torch
# without CUDA; the file does not stay in the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/fieldmark \
    && /opt/fieldmark/bin/pip install --no-cache-dir --constraint constraints.txt '.[app,postgres]'

FROM python:3.12-slim
COPY --from=built /opt/fieldmark /opt/fieldmark
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin fieldmark
ENV PATH=/opt/fieldmark/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FIELDMARK_OFFLINE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fieldmark", "serve"]
# Tokens are mounted when it starts; without them the service refuses to listen to other machines.
CMD ["/data/index", "--host", "0.0.0.0", "--tokens", "/run/secrets/tokens.toml", "--no-open"]
