"""The report: CSV and JSON, tables, Markdown, LaTeX, a page; the papers' figures beside ours."""
