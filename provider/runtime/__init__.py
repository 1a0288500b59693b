"""Containers on the host through the Docker Engine, hardened by one profile."""
