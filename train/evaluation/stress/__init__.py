"""Which metric to trust: how metrics answer to disturbances of a good fusion, and how far they agree."""
