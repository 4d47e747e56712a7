# Two images. `service`: graph, scheduler and the commands. `proxy`: HAProxy before any number of graphs.
# `docker compose up --build` makes both, and brings a database beside them.

# The web pages, ready to be served.
FROM node:22-trixie-slim AS web
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY web ./
RUN npm run build

FROM python:3.12-slim-trixie AS build
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
WORKDIR /src
COPY requirements.lock ./
# A third of what libraries bring is for their debuggers and their own tests. What numpy links to can't be stripped.
RUN python -m venv --without-pip /opt/simulations \
 && pip --python /opt/simulations/bin/python install --no-cache-dir --require-hashes -r requirements.lock \
 && find /opt/simulations -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && (cd /opt/simulations/lib/*/site-packages && find numpy scipy greenlet -name tests -prune -exec rm -r {} +)
COPY . .
COPY --from=web /src/web/dist web/dist
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && pip --python /opt/simulations/bin/python install --no-cache-dir --no-deps /wheels/*.whl

# What graphs are reached through: it finds new ones and loses ended ones by itself, and asks each whether it is ready.
FROM debian:trixie-slim AS proxy
RUN apt-get update \
 && apt-get install --yes --no-install-recommends haproxy \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
COPY <<'EOF' /etc/haproxy/haproxy.cfg
global
    log stdout format raw local0 notice
    # As many connections as files may be open, two for each.
    fd-hard-limit 40100
    hard-stop-after 5s
    # Names of headers have no case, but some clients know this one only as it is usually written (Python's gql).
    h1-case-adjust sec-websocket-protocol Sec-WebSocket-Protocol

# Docker's own DNS names every graph that runs. An address that it no longer names is no longer used.
resolvers docker
    nameserver docker 127.0.0.11:53
    accepted_payload_size 8192
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold obsolete 0s

defaults
    mode http
    log global
    option dontlognull
    option dontlog-normal
    option http-no-delay
    # A connection that is kept may be closed by a graph that ends, just when something is sent on it.
    option http-server-close
    # A graph that refuses the connection received nothing: try the next one. A request that was sent is never repeated.
    option redispatch 1
    retries 5
    retry-on conn-failure
    timeout connect 1s
    timeout queue 5s
    timeout http-request 10s
    timeout http-keep-alive 60s
    # WebSockets are pinged every 20 seconds, event streams say something every 15, and a query has 30.
    timeout client 75s
    timeout server 75s
    timeout tunnel 75s
    timeout check 5s
    http-error status 502 content-type application/json string '{"errors":[{"message":"The service ended before it had answered. Whether it did what was asked is not known: look before you ask again."}]}'
    http-error status 503 content-type application/json string '{"errors":[{"message":"The service is not ready: it is starting, or its database does not answer. Try again."}]}' hdr Retry-After 1
    http-error status 504 content-type application/json string '{"errors":[{"message":"The service did not answer in time."}]}'

frontend here
    bind :8000 proto h1
    option h1-case-adjust-bogus-client
    # What clients say of themselves does not count, unless they are a proxy that the operator named.
    acl is_proxy src "${SIMULATIONS_TRUSTED_PROXIES[*]}"
    http-request set-header X-Forwarded-For %[src] if !is_proxy || !{ req.hdr(X-Forwarded-For) -m found }
    http-request set-header X-Forwarded-Proto http if !is_proxy || !{ req.hdr(X-Forwarded-Proto) -m found }
    default_backend graphs

backend graphs
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
    default-server check inter 1s fastinter 200ms rise 1 fall 3 observe layer4 error-limit 1 on-error mark-down
    server-template graph 32 graph:8000 resolvers docker resolve-prefer ipv4 init-addr none
EOF
ENV SIMULATIONS_TRUSTED_PROXIES=127.0.0.1
USER haproxy
EXPOSE 8000
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=15s --timeout=20s --start-period=60s --start-interval=1s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/8000; printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; grep -q '^HTTP/1.[01] 200' <&3"]
CMD ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]

FROM python:3.12-slim-trixie AS service
RUN useradd --system --uid 1000 --create-home simulations \
 && install -d -o simulations -m 700 /var/lib/simulations \
 && install -d -o simulations -m 700 /var/lib/simulations-admin
COPY --from=build /opt/simulations /opt/simulations
ENV PATH=/opt/simulations/bin:$PATH PYTHONUNBUFFERED=1 SIMULATIONS_DATA_DIR=/var/lib/simulations
USER simulations
WORKDIR /var/lib/simulations
EXPOSE 8000
# Not Python, which would take a tenth of a second of CPU each time.
HEALTHCHECK --interval=15s --timeout=20s --start-period=60s --start-interval=1s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/${PORT:-8000}; printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; grep -q '^HTTP/1.[01] 200' <&3"]
CMD ["python", "-m", "graph"]
