"""Commands of the node, the market and the accounts."""
