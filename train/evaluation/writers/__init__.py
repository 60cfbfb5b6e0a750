"""The writers of a report: CSV, JSON, Markdown, LaTeX, HTML, and comparisons with the papers' tables."""
