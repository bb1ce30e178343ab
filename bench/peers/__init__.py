"""The scripts that a run is measured against: each is what someone would write by hand, and each runs by itself."""
