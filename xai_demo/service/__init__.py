"""What a server needs beyond the page: workers for hostile files, limits, health and metrics."""
