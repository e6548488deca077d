"""prerank: the pre-ranking stage of a recommender cascade."""
__version__ = "0.1.0"
