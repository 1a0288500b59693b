"""The flow from a deployment file to a running lease."""
