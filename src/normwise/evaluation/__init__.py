"""From attacks to figures: batches are attacked and checked, rows counted, sanity checks attached."""
