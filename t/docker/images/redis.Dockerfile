# Stands in for the official image of redis, as postgres.Dockerfile does.

FROM debian:trixie-slim

RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qy install \
        --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/*

VOLUME /data
WORKDIR /data
EXPOSE 6379
COPY redis-entrypoint /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
