"""Desired against actual: the journal, the reconcile loop, the executor."""
