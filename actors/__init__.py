"""Who speaks: policies, the conversation loop, retrieval, engines, walkers, the Parquet sink."""
