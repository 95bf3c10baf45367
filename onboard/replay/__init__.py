"""A recorded flight is replayed as if live, and told about: fixes.csv, summary.json, report.html."""
