"""Mutations of the rules that matter, each of which tests must catch: `make mutants`, docs/mutations.md."""
