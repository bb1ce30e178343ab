"""The plug-in API. A connector imports this package, pyarrow and its driver, and nothing else of dropless."""
