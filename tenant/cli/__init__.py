"""Commands of the tenant."""
