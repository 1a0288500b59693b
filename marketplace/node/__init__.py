"""The node: composition of engine and market, REST, server-sent events, metrics."""
