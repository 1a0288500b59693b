"""From a file to a lease: the SDL, the deploy flow, the REST gateway and the commands."""
