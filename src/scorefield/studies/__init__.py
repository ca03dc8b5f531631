"""Studies: the papers' experiments, and the methods of the lineage compared on one data set."""

from scorefield.studies import methods, papers

__all__ = ["methods", "papers"]
