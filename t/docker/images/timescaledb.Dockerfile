# PostgreSQL with TimescaleDB, both Debian's.  It listens on the socket that it
# makes in /run/postgresql, and starts anew with each container.

FROM debian:trixie-slim

RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qy install \
        --no-install-recommends postgresql postgresql-17-timescaledb \
    && rm -rf /var/lib/postgresql/* /var/lib/apt/lists/*

ENV PATH=/usr/lib/postgresql/17/bin:$PATH
USER postgres
RUN initdb -D /var/lib/postgresql/data -A trust -E UTF8 --locale=C.UTF-8
STOPSIGNAL SIGINT
CMD ["postgres", "-D", "/var/lib/postgresql/data", "-c", "listen_addresses=", \
    "-c", "shared_preload_libraries=timescaledb", \
    "-c", "timescaledb.telemetry_level=off"]
