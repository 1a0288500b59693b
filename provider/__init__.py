"""From a lease to a container: inventory, bids, the Docker runtime, the gateway, the daemon."""
