"""Evaluation: scores fusion methods on the samples of shards and writes a report.

``samples``, ``scoring`` and ``parts`` select the samples, score one, and score all of them in processes; ``methods``
has what is compared; ``aggregate``, ``bootstrap`` and ``summary`` compute the statistics; ``writers`` write the report.
"""
