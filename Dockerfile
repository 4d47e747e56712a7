# The service without a database: `docker compose up --build` brings one beside it.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/simulations \
 && /opt/simulations/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && /opt/simulations/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.12-slim
RUN useradd --system --uid 1000 --create-home simulations \
 && install -d -o simulations /var/lib/simulations \
 && install -d -o simulations -m 700 /var/lib/simulations-admin
COPY --from=build /opt/simulations /opt/simulations
ENV PATH=/opt/simulations/bin:$PATH PYTHONUNBUFFERED=1 SIMULATIONS_DATA_DIR=/var/lib/simulations
USER simulations
WORKDIR /var/lib/simulations
EXPOSE 8000
CMD ["python", "-m", "graph"]
