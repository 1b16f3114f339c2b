"""From attacks to figures: batches are attacked and judged, rows counted, doubts attached."""
