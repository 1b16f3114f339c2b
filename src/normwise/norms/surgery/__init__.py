"""Change the norms of a network that is there: convert, insert, fold, recalibrate, freeze."""
