"""Evaluation: methods scored on the samples of shards, from a part of a shard to the tables of a report.

samples, scoring, parts: what is scored, one sample, many in processes. fused, restoring, networks, results: what is
compared. aggregate, tally, summary: statistics. tables, markdown, latex, page, facts, published: what is written.
"""
