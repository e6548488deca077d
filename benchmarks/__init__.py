"""Measurements that write results/*.json; they import the package, never the reverse."""
