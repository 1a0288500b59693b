"""The REST gateway of a tenant: deployments over HTTP with a bearer key."""
