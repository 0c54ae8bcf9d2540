# The stand-in for the OpenAI API.  Its context is t/lib.

FROM debian:trixie-slim

RUN apt-get -q update \
    && apt-get -qy install --no-install-recommends perl \
    && rm -rf /var/lib/apt/lists/*

EXPOSE 8080
COPY openai /usr/local/bin/
ENTRYPOINT ["openai", "--address", "0.0.0.0", "--port", "8080"]
