"""What is traded: the market's words and law, the node that serves them, and its client."""
