# OpenAI's SDK for Python, which Debian 12 does not have.

FROM debian:trixie-slim

RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qy install \
        --no-install-recommends python3-openai \
    && rm -rf /var/lib/apt/lists/*
