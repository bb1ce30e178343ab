"""Contracts: promises about a dataset (Open Data Contract Standard v3), as rules that are SQL conditions."""
