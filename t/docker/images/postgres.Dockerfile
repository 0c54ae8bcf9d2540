# Stands in for the official image of postgres where no registry is reachable:
# the same environment, paths and users, of Debian's package.

FROM debian:trixie-slim

RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qy install \
        --no-install-recommends postgresql \
    && rm -rf /var/lib/postgresql/* /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres /run/postgresql

ENV PGDATA=/var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql
EXPOSE 5432
STOPSIGNAL SIGINT
COPY postgres-entrypoint /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
