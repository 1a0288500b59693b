"""The gateway that tenants reach over HTTPS: manifests, status, logs, exec."""
