"""What fa4gen shows: plain views first, then a drawing of them (Rich tables, JSON)."""
