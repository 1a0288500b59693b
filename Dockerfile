FROM python:3.11-slim-bookworm
# iptables: the provider writes the rules that keep leases from the host and from each other.
RUN apt-get update && apt-get install -y --no-install-recommends iptables && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/gpubid
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock && pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY ledger ledger
COPY marketplace marketplace
COPY provider provider
COPY tenant tenant
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
ENV GPUBID_HOME=/data
VOLUME /data
ENTRYPOINT ["gpubid"]
