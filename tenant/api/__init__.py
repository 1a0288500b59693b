"""The tenant's REST gateway: deployments as requests of a program, with a bearer key."""
