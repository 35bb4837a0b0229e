"""From what the experiment judged to what a report says."""
