"""Commands of the provider operator."""
